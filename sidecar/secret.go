package sidecar

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/cachesidecar/cachesidecar/internal/plainfile"
	"github.com/cachesidecar/cachesidecar/loader"
)

// maxSecret bounds a file that holds a secret.
const maxSecret = 64 << 10

// secret reads what setting_file or setting_env names; "" where neither is
// given. No error shows a secret, also where one stands in place of its name.
func secret(setting, file, env string) (string, error) {
	switch {
	case file != "" && env != "":
		return "", fmt.Errorf("%s_file and %[1]s_env are given: give one of them", setting)
	case file != "":
		return secretFile(setting+"_file", file)
	case env != "":
		return secretEnv(setting+"_env", env)
	}
	return "", nil
}

// secretFile returns what a file holds, without the line's end. Only this process's
// user, its group and root may open the file.
func secretFile(setting, path string) (string, error) {
	return fileText(setting, path, plainfile.Secret)
}

// publicFile is secretFile, of a file that every user may read.
func publicFile(setting, path string) (string, error) { return fileText(setting, path, plainfile.Read) }

func fileText(setting, path string, read func(string, int) ([]byte, error)) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("%s: give the whole path, from / on, of a file that holds it, and not the secret itself", setting)
	}
	b, err := read(path, maxSecret)
	switch {
	case errors.Is(err, plainfile.ErrExposed):
		return "", fmt.Errorf("%s %s: %w", setting, path, err)
	case err != nil:
		return "", fmt.Errorf("%s %s: %w: give the path of a file that this process may read", setting, path, err)
	}
	s := strings.TrimRight(string(b), "\r\n")
	if s == "" {
		return "", fmt.Errorf("%s %s: the file is empty: write the secret into it", setting, path)
	}
	return s, nil
}

// variableName is narrow, so that a secret in its place is not shown.
var variableName = regexp.MustCompile(`^[A-Z_][A-Z0-9_]*$`)

const noVariable = "give the name of an environment variable, of A-Z, 0-9 and _, and not the secret itself"

func secretEnv(setting, name string) (string, error) {
	if !variableName.MatchString(name) {
		return "", fmt.Errorf("%s: %s", setting, noVariable)
	}
	v := os.Getenv(name)
	if v == "" {
		return "", fmt.Errorf("%s: the environment variable %s is not set, or empty: set it for the sidecar", setting, name)
	}
	return v, nil
}

// tls reads the files for an encrypted connection; nil where none is wanted.
func (r *RedisOrigin) tls() (*tls.Config, error) {
	if !r.TLS {
		if r.TLSCAFile != "" || r.TLSCertFile != "" || r.TLSKeyFile != "" {
			return nil, errors.New("tls_ca_file, tls_cert_file and tls_key_file count with tls: true alone: set it, or leave them out")
		}
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if r.TLSCAFile != "" {
		pem, err := publicFile("tls_ca_file", r.TLSCAFile)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM([]byte(pem)) {
			return nil, fmt.Errorf("tls_ca_file %s: there is no certificate in it: give one in PEM", r.TLSCAFile)
		}
	}
	if r.TLSCertFile == "" && r.TLSKeyFile == "" {
		return c, nil
	}
	cert, err := publicFile("tls_cert_file", r.TLSCertFile)
	if err != nil {
		return nil, err
	}
	key, err := secretFile("tls_key_file", r.TLSKeyFile)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		return nil, fmt.Errorf("tls_cert_file %s and tls_key_file %s: %w: give a certificate and its key, in PEM", r.TLSCertFile, r.TLSKeyFile, err)
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}

// secrets are what no error may show: a server may repeat what it was sent, and
// a command may say anything.
type secrets []string

// hide leaves the secrets out of an error's text.
func (s secrets) hide(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	for _, secret := range s {
		if secret == "" {
			continue
		}
		text = strings.ReplaceAll(text, secret, "(secret)")
		text = strings.ReplaceAll(text, strings.Trim(strconv.Quote(secret), `"`), "(secret)")
	}
	if text == err.Error() {
		return err
	}
	return hidden{err, text}
}

// source is a source whose errors show none of them.
func (s secrets) source(from loader.Source) loader.Source {
	return loader.SourceFunc(func(ctx context.Context, key []byte) (loader.Value, error) {
		v, err := from.Load(ctx, key)
		return v, s.hide(err)
	})
}

// hidden is an error with another text.
type hidden struct {
	error
	text string
}

func (h hidden) Error() string { return h.text }
func (h hidden) Unwrap() error { return h.error }
