package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/cachesidecar/cachesidecar/internal/logs"
)

// envPrefix begins the names of all environment variables that the command reads.
const envPrefix = "CACHESIDECAR_"

// ofKubernetes matches the variables that Kubernetes makes for the services of a
// namespace, if their names begin with "cachesidecar": CACHESIDECAR_SERVICE_HOST,
// CACHESIDECAR_PORT_7946_TCP, CACHESIDECAR_HTTP_SERVICE_PORT. No setting has such a name.
var ofKubernetes = regexp.MustCompile(`^` + envPrefix + `(.*_)?(SERVICE_.*|PORT(_.*)?)$`)

// knownVariables returns the flags whose values the command reads from the environment.
func knownVariables() []string { return append(flagNames(runFlags()), socketFlag.Name, tokenFlag.Name) }

// flagOfVariable returns the name of the flag that an environment variable is for.
func flagOfVariable(name string) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, envPrefix), "_", "-"))
}

// unknownVariables returns a message for each variable of the environment whose name
// begins with CACHESIDECAR_, if neither a setting has the name nor the file tells of it:
// origins read variables that the file names.
func unknownVariables(environment []string, file *yaml.Node) (messages []string) {
	known := knownVariables()
	slices.Sort(environment)
	for _, line := range environment {
		name, _, _ := strings.Cut(line, "=")
		reads := name == envName(flagOfVariable(name)) && slices.Contains(known, flagOfVariable(name))
		if !strings.HasPrefix(name, envPrefix) || reads || ofKubernetes.MatchString(name) || says(file, name) {
			continue
		}
		what := "see docs/CONFIG.md for those that have"
		if near := nearest(flagOfVariable(name), known); near != "" {
			what = fmt.Sprintf("did you mean $%s?", envName(near))
		}
		messages = append(messages, fmt.Sprintf("$%s is no setting, and it has no effect: %s", name, what))
	}
	return messages
}

// says reports whether a file has a text among its values.
func says(n *yaml.Node, text string) bool {
	if n == nil {
		return false
	}
	return n.Kind == yaml.ScalarNode && n.Value == text ||
		slices.ContainsFunc(n.Content, func(part *yaml.Node) bool { return says(part, text) })
}

// warnUnknown writes a warning for each variable that names no setting.
func (p *program) warnUnknown(cfg *fileConfig) {
	for _, m := range unknownVariables(os.Environ(), cfg.sources.root) {
		fmt.Fprintln(p.err, "cachesidecar: warning:", logs.Plain(m))
	}
}
