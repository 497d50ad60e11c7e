package settings

import (
	"errors"
	"fmt"
	"reflect"
)

// Problems collects what is wrong with settings, so that all of it is reported at once.
// The text of a problem begins with the name of the setting: "quota 1B: give …".
type Problems struct{ list []error }

// Add adds an error, or each part of a joined one. It ignores nil.
func (p *Problems) Add(err error) { p.list = append(p.list, Each(err)...) }

// Addf adds an error that fmt.Errorf makes.
func (p *Problems) Addf(format string, args ...any) {
	p.list = append(p.list, fmt.Errorf(format, args...))
}

// Within adds an error, or each part of a joined one, with words before it.
func (p *Problems) Within(words string, err error) {
	for _, e := range Each(err) {
		p.Addf("%s: %w", words, e)
	}
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
