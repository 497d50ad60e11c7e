// Package settings checks what a configuration says: numbers within bounds, addresses,
// and the files and variables that contain secrets. It reads the short files that a
// configuration or a flag names, and says which users may read or change them.
//
// Input is the value of a setting and its name; output is the value to use, or an error
// that names the setting, the value and the remedy. An error never shows a secret, even
// if the secret is in the wrong place. The package reads files and environment variables,
// asks no server, starts no goroutine and keeps nothing.
package settings

import (
	"cmp"
	"net"
	"strconv"
	"strings"
)

// Bounded returns an error if v is outside of least to most, or is not a number.
func Bounded[T cmp.Ordered](name string, v, least, most T) error {
	if v >= least && v <= most {
		return nil
	}
	return Problemf(name, "%v: give %v to %v", v, least, most)
}

// Default sets a setting that was left out. It is for settings whose zero value has a meaning.
func Default[T any](v **T, def T) {
	if *v == nil {
		*v = &def
	}
}

// Address returns an error if text is neither host:port nor the path of a socket. The
// error does not show the text, because people give URLs with a password here.
func Address(setting, text string) error {
	if strings.HasPrefix(text, "/") {
		return nil
	}
	host, port, err := net.SplitHostPort(text)
	n, e := strconv.ParseUint(port, 10, 16)
	if err != nil || e != nil || n == 0 || host == "" || strings.ContainsAny(host, "@/") {
		return Problemf(setting, ": give host:port, or the path of a socket, without user and password")
	}
	return nil
}
