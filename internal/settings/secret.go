package settings

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// maxSecret bounds a file that contains a secret, in bytes.
const maxSecret = 64 << 10

// Secret reads the file or the environment variable that setting_file or setting_env
// names. It returns "" if both are empty.
func Secret(setting, file, env string) (string, error) {
	switch {
	case file != "" && env != "":
		return "", Problemf(setting+"_file", "and %s_env are given: give one of them", setting)
	case file != "":
		return SecretFile(setting+"_file", file)
	case env != "":
		return SecretEnv(setting+"_env", env)
	}
	return "", nil
}

// SecretFile returns the content of a file without the line's end. Only this process's
// user, its group and root may be able to open the file.
func SecretFile(setting, path string) (string, error) {
	return fileText(setting, path, ReadSecret)
}

// PublicFile is SecretFile for a file that every user may read.
func PublicFile(setting, path string) (string, error) { return fileText(setting, path, ReadFile) }

func fileText(setting, path string, read func(string, int) ([]byte, error)) (string, error) {
	if !filepath.IsAbs(path) {
		return "", Problemf(setting, ": give the whole path, from / on, of a file that contains it, "+
			"and not the secret itself")
	}
	b, err := read(path, maxSecret)
	switch {
	case errors.Is(err, ErrExposed):
		return "", Problemf(setting, "%s: %w", path, err)
	case err != nil:
		return "", Problemf(setting, "%s: %w: give the path of a file that this process may read", path, err)
	}
	s := strings.TrimRight(string(b), "\r\n")
	if s == "" {
		return "", Problemf(setting, "%s: the file is empty: write the secret into it", path)
	}
	return s, nil
}

// variableName is narrow, so that a secret in the place of a name is not shown.
var variableName = regexp.MustCompile(`^[A-Z_][A-Z0-9_]*$`)

// VariableName returns an error if name is not the name of an environment variable.
func VariableName(setting, name string) error {
	if !variableName.MatchString(name) {
		return Problemf(setting, ": give the name of an environment variable, of A-Z, 0-9 and _, and not the "+
			"secret itself")
	}
	return nil
}

// SecretEnv returns the value of an environment variable.
func SecretEnv(setting, name string) (string, error) {
	if err := VariableName(setting, name); err != nil {
		return "", err
	}
	v := os.Getenv(name)
	if v == "" {
		return "", Problemf(setting, ": the environment variable %s is not set, or empty: set it for the sidecar", name)
	}
	return v, nil
}
