// Package cli turns a command line into a call: commands, subcommands, flags and help.
//
// The input is a tree of Commands and the arguments of the process. The output is one call
// of an Action, or help on a writer, or an Error that says what is wrong. Flags may stand
// before and after arguments; "--" ends them. A flag that is not given has the value of its
// environment variable, else its default.
//
// The package starts no goroutine and keeps no state. It exists because the libraries for
// command lines print help with text/template, which finds methods by name: the linker then
// keeps all exported methods of all types of the program.
package cli

import (
	"context"
	"io"
	"slices"
	"strings"
)

// Command is a command, or the program itself.
type Command struct {
	Name        string
	Usage       string // one line
	ArgsUsage   string // the arguments, such as "KEY VALUE"
	Description string // more lines
	Flags       []Flag
	Subcommands []*Command
	// Action carries the command out. It may be nil if there are subcommands: the command
	// is then incomplete without one of them.
	Action ActionFunc
}

// ActionFunc carries a command out.
type ActionFunc func(*Context) error

// Context is one call of a command, with the values of its flags.
type Context struct {
	context.Context
	Command *Command
	Path    string // the command with the commands above it, such as "program config check"

	out    io.Writer // for help
	args   Args
	values map[string]value // by the flag's first name
}

type value struct {
	is    any
	given bool // by a flag or a variable
	typed bool // by a flag
}

// Args are the arguments of a call, without flags.
type Args []string

// Get returns an argument; "" if there are not so many.
func (a Args) Get(i int) string {
	if i < len(a) {
		return a[i]
	}
	return ""
}

// First returns the first argument; "" if there is none.
func (a Args) First() string { return a.Get(0) }

// Slice returns a copy of the arguments.
func (a Args) Slice() []string { return slices.Clone(a) }

// Args returns the arguments of the call.
func (c *Context) Args() Args { return c.args }

// NArg returns the number of arguments.
func (c *Context) NArg() int { return len(c.args) }

// IsSet reports whether a flag or its environment variable is given.
func (c *Context) IsSet(name string) bool { return c.values[name].given }

// Run carries out a command line, whose first element is the program's name. Help is
// written to out.
func (c *Command) Run(ctx context.Context, out io.Writer, line []string) error {
	program := &Context{Context: ctx, Command: c, Path: c.Name, out: out}
	return program.run(line[min(1, len(line)):], true)
}

// Find returns the subcommand of that name; nil if there is none.
func (c *Command) Find(name string) *Command {
	for _, sub := range c.Subcommands {
		if sub.Name == name {
			return sub
		}
	}
	return nil
}

// below returns the call of a subcommand.
func (c *Context) below(sub *Command) *Context {
	return &Context{Context: c.Context, Command: sub, Path: c.Path + " " + sub.Name, out: c.out}
}

// run parses the rest of the command line and calls the command, or one below it.
func (c *Context) run(rest []string, program bool) error {
	if err := c.defaults(); err != nil {
		return err
	}
	for len(rest) > 0 {
		word := rest[0]
		rest = rest[1:]
		switch {
		case word == "--":
			if sub := c.Command.Find(Args(rest).First()); sub != nil && len(c.args) == 0 {
				return c.below(sub).run(append([]string{"--"}, rest[1:]...), false)
			}
			c.args, rest = append(c.args, rest...), nil
		case isFlag(word):
			var help bool
			var err error
			if rest, help, err = c.flag(word, rest); err != nil {
				return err
			} else if help {
				return c.help(program)
			}
		case len(c.args) == 0 && c.Command.Find(word) != nil:
			return c.below(c.Command.Find(word)).run(rest, false)
		case len(c.args) == 0 && isHelp(word) && c.Command.Subcommands != nil:
			return c.topic(rest, program)
		case program: // no such command: its flags are unknown too
			c.args, rest = append(Args{word}, rest...), nil
		default:
			c.args = append(c.args, word)
		}
	}
	for _, f := range c.Command.Flags {
		if err := f.act(c); err != nil {
			return err
		}
	}
	if c.Command.Action == nil {
		return c.NoCommand()
	}
	return c.Command.Action(c)
}

// NoCommand returns the error for a call without a subcommand, or with one that does not
// exist.
func (c *Context) NoCommand() error {
	return c.wrong(Error{Problem: NoCommand, Name: c.args.First(), Given: len(c.args) > 0})
}

// topic explains the command that the words after "help" name.
func (c *Context) topic(words []string, program bool) error {
	for _, word := range words {
		if isFlag(word) || isHelp(word) || c.Command.Subcommands == nil {
			break
		}
		sub := c.Command.Find(word)
		if sub == nil {
			return c.wrong(Error{Problem: NoCommand, Name: word, Given: true})
		}
		c, program = c.below(sub), false
	}
	return c.help(program)
}

// isFlag reports whether a word is a flag: a lone "-" and negative numbers are arguments.
func isFlag(word string) bool {
	return len(word) > 1 && word[0] == '-' && (word[1] < '0' || word[1] > '9') && word[1] != '.'
}

func isHelp(name string) bool { return name == "help" || name == "h" }

// Problem is a kind of mistake in a command line.
type Problem int

// The mistakes.
const (
	NoCommand   Problem = iota // Name is not given, or is no subcommand of the command
	UnknownFlag                // Name is no flag of the command
	NoValue                    // the flag Name stands at the end
	BadValue                   // Value does not suit the flag Name
	BadVariable                // Value of the environment variable Variable does not suit the flag Name
	BadSyntax                  // Name cannot be read as a flag
)

// Error is a mistake in a command line.
type Error struct {
	Command  *Command
	Path     string // of the command
	Problem  Problem
	Name     string
	Given    bool // NoCommand: a name is given
	Value    string
	Variable string
}

// wrong returns a mistake in the call of the command.
func (c *Context) wrong(e Error) error {
	e.Command, e.Path = c.Command, c.Path
	return &e
}

// Error describes the mistake.
func (e *Error) Error() string {
	switch e.Problem {
	case NoCommand:
		return strings.TrimSpace("no such command: " + e.Path + " " + e.Name)
	case UnknownFlag:
		return "no such flag: --" + e.Name
	case NoValue:
		return "no value for --" + e.Name
	case BadValue:
		return "wrong value for --" + e.Name + ": " + e.Value
	case BadVariable:
		return "wrong value in $" + e.Variable + ": " + e.Value
	}
	return "bad flag syntax: " + e.Name
}
