package settings

import (
	"regexp"
	"strings"
)

// secretWord matches the names of things that may be secrets.
const secretWord = `(?:pass|secret|token|credential|api[-_]?key|auth|cookie|dsn)`

// These match names whose values may be secrets, and in a text the password of a URL or a
// DSN, and such parameters of a URL.
var (
	secretName = regexp.MustCompile(`(?i)` + secretWord)
	secretText = regexp.MustCompile(`(?i)(://[^/@\s:]*:)[^/@\s]+(@)|(password=)(?:'[^']*'|[^\s&]+)|` +
		`([?&][^=&\s]*` + secretWord + `[^=&\s]*=)[^&\s]+`)
)

const hidden = "(hidden)"

// Masked returns the value of a setting without secrets, for people to read. Settings have
// no secrets, but people put some there: in headers, in URLs, and in the variables of
// commands. Names of files and of variables are shown. of is the name of the map that the
// setting is in; "" if it is in none.
func Masked(of, name, text string) string {
	isName := strings.HasSuffix(name, "_file") || strings.HasSuffix(name, "_env") || strings.HasSuffix(of, "_files")
	if secretName.MatchString(name) && !isName {
		return hidden
	}
	return secretText.ReplaceAllString(text, "${1}${3}${4}"+hidden+"${2}")
}

// MaskedList is Masked for the elements of a list: of env, which has NAME=value, of a command, in which a secret
// may follow a flag, or of another.
func MaskedList(name string, list []string) []string {
	masked := make([]string, len(list))
	for i, text := range list {
		variable, content, ok := strings.Cut(text, "=")
		switch {
		case ok && (name == "env" || strings.HasPrefix(text, "-")) && Masked("", variable, content) != content:
			masked[i] = variable + "=" + hidden
		case i > 0 && isFlag(list[i-1]) && Masked("", list[i-1], text) != text:
			masked[i] = hidden
		default:
			masked[i] = Masked("", "", text)
		}
	}
	return masked
}

// isFlag reports whether the value of an argument is the next one.
func isFlag(arg string) bool { return strings.HasPrefix(arg, "-") && !strings.Contains(arg, "=") }
