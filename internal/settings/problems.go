package settings

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode"
)

// Problem is what is wrong with a setting. Its text is the path of the setting, and the rest of a sentence:
// "namespaces.users.quota 1 B: give …".
type Problem struct {
	Setting string // its path in a file; "": the problem concerns no single setting
	Err     error  // the rest: "1 B: give …", or ": give …" without the value
}

// Problemf returns a Problem whose rest fmt.Errorf makes.
func Problemf(setting, format string, args ...any) error {
	return &Problem{Setting: setting, Err: fmt.Errorf(format, args...)}
}

func (one *Problem) Error() string {
	name, rest := one.Setting, one.Err.Error()
	if strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) }) {
		name = strconv.Quote(name)
	}
	if name == "" || strings.HasPrefix(rest, ": ") {
		return name + rest
	}
	return name + " " + rest
}

// Unwrap returns the rest.
func (one *Problem) Unwrap() error { return one.Err }

// Within returns an error, or each part of a joined one, as a problem of a setting, or of one below it: the path of a
// Problem is continued.
func Within(path string, err error) error {
	var all []error
	for _, e := range Each(err) {
		p, ok := e.(*Problem)
		if ok && p.Setting != "" {
			all = append(all, &Problem{Setting: path + "." + p.Setting, Err: p.Err})
		} else {
			all = append(all, Problemf(path, ": %w", e))
		}
	}
	return errors.Join(all...)
}

// Problems collects what is wrong with settings, so that all of it is reported at once.
type Problems struct{ list []error }

// Add adds an error, or each part of a joined one. It ignores nil.
func (p *Problems) Add(err error) { p.list = append(p.list, Each(err)...) }

// Addf adds a Problem that Problemf makes.
func (p *Problems) Addf(setting, format string, args ...any) {
	p.list = append(p.list, Problemf(setting, format, args...))
}

// Err returns all problems, joined; nil if there is none.
func (p *Problems) Err() error { return errors.Join(p.list...) }

// Each returns the parts of an error that errors.Join has made, or the error itself, or
// nothing if it is nil.
func Each(err error) (list []error) {
	if err == nil {
		return nil
	}
	if reflect.TypeOf(err) != joined {
		return []error{err}
	}
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		list = append(list, Each(e)...)
	}
	return list
}

// joined is the type of what errors.Join returns. fmt.Errorf with two %w has the same
// method, and makes one error.
var joined = reflect.TypeOf(errors.Join(errors.ErrUnsupported))
