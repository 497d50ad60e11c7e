package cli

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Flag is a flag of a command: a pointer to one of the types below.
type Flag interface {
	// Names returns the flag's name and then its other names.
	Names() []string
	// About returns what the flag is for. A part in `backquotes` names its value.
	About() string
	// Variables returns the environment variables that stand for the flag.
	Variables() []string

	initial() any
	parse(text string) (any, error)
	act(*Context) error
	defaultText() string
}

// The types of flags, by the type of their value. A []string is given as one list with
// commas, or as several flags.
type (
	StringFlag      = FlagOf[string]
	BoolFlag        = FlagOf[bool]
	IntFlag         = FlagOf[int]
	UintFlag        = FlagOf[uint]
	Uint64Flag      = FlagOf[uint64]
	Float64Flag     = FlagOf[float64]
	DurationFlag    = FlagOf[time.Duration]
	StringSliceFlag = FlagOf[[]string]
)

// FlagOf is a flag whose value has type T.
type FlagOf[T any] struct {
	Name        string
	Aliases     []string
	Usage       string // see Flag.About
	EnvVars     []string
	Value       T      // the default
	DefaultText string // the default in the help; "": Value
	// DisableDefaultText leaves the default out of the help.
	DisableDefaultText bool
	// Action, if not nil, checks a value that is given.
	Action func(*Context, T) error
}

// Names returns the flag's name and then its other names.
func (f *FlagOf[T]) Names() []string { return append([]string{f.Name}, f.Aliases...) }

// About returns what the flag is for.
func (f *FlagOf[T]) About() string { return f.Usage }

// Variables returns the environment variables that stand for the flag.
func (f *FlagOf[T]) Variables() []string { return f.EnvVars }

func (f *FlagOf[T]) initial() any { return f.Value }

func (f *FlagOf[T]) act(c *Context) error {
	if f.Action == nil || !c.IsSet(f.Name) {
		return nil
	}
	return f.Action(c, valueOf[T](c, f.Name))
}

func (f *FlagOf[T]) parse(text string) (v any, err error) {
	switch any(f.Value).(type) {
	case bool:
		return strconv.ParseBool(text)
	case int:
		n, err := strconv.ParseInt(text, 0, strconv.IntSize)
		return int(n), err
	case uint:
		n, err := strconv.ParseUint(text, 0, strconv.IntSize)
		return uint(n), err
	case uint64:
		return strconv.ParseUint(text, 0, 64)
	case float64:
		return strconv.ParseFloat(text, 64)
	case time.Duration:
		return time.ParseDuration(text)
	case []string:
		list := strings.Split(text, ",")
		for i := range list {
			list[i] = strings.TrimSpace(list[i])
		}
		return list, nil
	}
	return text, nil
}

func (f *FlagOf[T]) defaultText() string {
	if f.DefaultText != "" || f.DisableDefaultText {
		return f.DefaultText
	}
	switch v := any(f.Value).(type) {
	case bool:
		return strconv.FormatBool(v)
	case int:
		return strconv.Itoa(v)
	case uint:
		return strconv.FormatUint(uint64(v), 10)
	case uint64:
		return strconv.FormatUint(v, 10)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case time.Duration:
		return v.String()
	case string:
		if v != "" {
			return strconv.Quote(v)
		}
	}
	return ""
}

// defaults gives each flag its environment variable's value, else its default. An empty
// variable counts as not set.
func (c *Context) defaults() error {
	c.values = map[string]value{}
	for _, f := range c.Command.Flags {
		name := f.Names()[0]
		c.values[name] = value{is: f.initial()}
		for _, variable := range f.Variables() {
			text := os.Getenv(variable)
			if text == "" {
				continue
			}
			v, err := f.parse(text)
			if err != nil {
				return c.wrong(Error{Problem: BadVariable, Name: name, Value: text, Variable: variable})
			}
			c.values[name] = value{is: v, given: true}
			break
		}
	}
	return nil
}

// flag takes one flag, and its value from rest if need be. It returns what is left of rest,
// and whether the flag asks for help.
func (c *Context) flag(word string, rest []string) (left []string, help bool, err error) {
	name := strings.TrimPrefix(word[1:], "-")
	name, text, with := strings.Cut(name, "=")
	if name == "" || name[0] == '-' {
		return nil, false, c.wrong(Error{Problem: BadSyntax, Name: word})
	}
	var f Flag = &BoolFlag{Name: "help"}
	if !isHelp(name) {
		at := slices.IndexFunc(c.Command.Flags, func(f Flag) bool { return slices.Contains(f.Names(), name) })
		if at < 0 {
			return nil, false, c.wrong(Error{Problem: UnknownFlag, Name: name})
		}
		f = c.Command.Flags[at]
	}
	if _, isBool := f.(*BoolFlag); isBool && !with {
		text, with = "true", true
	}
	if !with {
		if len(rest) == 0 {
			return nil, false, c.wrong(Error{Problem: NoValue, Name: name})
		}
		text, rest = rest[0], rest[1:]
	}
	v, err := f.parse(text)
	if err != nil {
		return nil, false, c.wrong(Error{Problem: BadValue, Name: name, Value: text})
	}
	if isHelp(name) {
		return rest, v == true, nil
	}
	c.set(f.Names()[0], v)
	return rest, false, nil
}

// set gives a flag a value. Lists of several flags make one list, without the variable's.
func (c *Context) set(name string, v any) {
	if more, isList := v.([]string); isList && c.values[name].typed {
		v = append(valueOf[[]string](c, name), more...)
	}
	c.values[name] = value{is: v, given: true, typed: true}
}

func valueOf[T any](c *Context, name string) T {
	v, _ := c.values[name].is.(T) // a flag that the command does not have: T's zero
	return v
}

// String returns the value of a flag.
func (c *Context) String(name string) string { return valueOf[string](c, name) }

// Bool returns the value of a flag.
func (c *Context) Bool(name string) bool { return valueOf[bool](c, name) }

// Int returns the value of a flag.
func (c *Context) Int(name string) int { return valueOf[int](c, name) }

// Uint returns the value of a flag.
func (c *Context) Uint(name string) uint { return valueOf[uint](c, name) }

// Uint64 returns the value of a flag.
func (c *Context) Uint64(name string) uint64 { return valueOf[uint64](c, name) }

// Float64 returns the value of a flag.
func (c *Context) Float64(name string) float64 { return valueOf[float64](c, name) }

// Duration returns the value of a flag.
func (c *Context) Duration(name string) time.Duration { return valueOf[time.Duration](c, name) }

// StringSlice returns the value of a flag.
func (c *Context) StringSlice(name string) []string { return valueOf[[]string](c, name) }
