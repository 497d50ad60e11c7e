package configfile

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"
)

// envPrefix begins the names of all environment variables that the command reads.
const envPrefix = "CACHESIDECAR_"

// ofKubernetes matches the variables that Kubernetes makes for the services of a
// namespace, if their names begin with "cachesidecar": CACHESIDECAR_SERVICE_HOST,
// CACHESIDECAR_PORT_7946_TCP, CACHESIDECAR_HTTP_SERVICE_PORT. No setting has such a name.
var ofKubernetes = regexp.MustCompile(`^` + envPrefix + `(.*_)?(SERVICE_.*|PORT(_.*)?)$`)

// namesOf returns the names of flags.
func namesOf(flags []cli.Flag) (names []string) {
	for _, f := range flags {
		names = append(names, f.Names()...)
	}
	return names
}

// flagOfVariable returns the name of the flag that an environment variable is for.
func flagOfVariable(name string) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, envPrefix), "_", "-"))
}

// UnknownVariables returns a message for each variable of the environment whose name
// begins with CACHESIDECAR_, if neither a setting has the name nor the file tells of it:
// origins read variables that the file names. others are the flags that are no settings and that the environment
// may give.
func (file *File) UnknownVariables(environment []string, others ...string) (messages []string) {
	known := append(namesOf(Flags()), others...)
	slices.Sort(environment)
	for _, line := range environment {
		name, _, _ := strings.Cut(line, "=")
		reads := name == EnvName(flagOfVariable(name)) && slices.Contains(known, flagOfVariable(name))
		if !strings.HasPrefix(name, envPrefix) || reads || ofKubernetes.MatchString(name) ||
			hasText(file.sources.root, name) {
			continue
		}
		what := "see docs/CONFIG.md for those that have"
		if near := Nearest(flagOfVariable(name), known); near != "" {
			what = fmt.Sprintf("did you mean $%s?", EnvName(near))
		}
		messages = append(messages, fmt.Sprintf("$%s is no setting, and it has no effect: %s", name, what))
	}
	return messages
}

// hasText reports whether a file has a text among its values.
func hasText(n *yaml.Node, text string) bool {
	if n == nil {
		return false
	}
	return n.Kind == yaml.ScalarNode && n.Value == text ||
		slices.ContainsFunc(n.Content, func(part *yaml.Node) bool { return hasText(part, text) })
}
