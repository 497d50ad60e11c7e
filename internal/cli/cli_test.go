package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// tree returns a program whose actions print the call to out.
func tree(out *bytes.Buffer) *Command {
	act := func(c *Context) error {
		var flags []string
		for name, v := range c.values {
			if v.given {
				flags = append(flags, fmt.Sprintf("%s=%v", name, v.is))
			}
		}
		slices.Sort(flags)
		fmt.Fprintf(out, "%s %q %q", c.Path, flags, c.Args())
		return nil
	}
	flags := []Flag{
		&BoolFlag{Name: "json", Aliases: []string{"j"}, Usage: "print JSON", DisableDefaultText: true},
		&BoolFlag{Name: "fast", Usage: "hurry"},
		&StringFlag{Name: "ns", Usage: "the `NAMESPACE`", Value: "default", EnvVars: []string{"CLI_TEST_NS"}},
		&DurationFlag{Name: "ttl", Usage: "live this `TIME`", EnvVars: []string{"CLI_TEST_TTL"}},
		&IntFlag{Name: "n", Usage: "a number", Value: 3},
		&UintFlag{Name: "flags", Usage: "bits"},
		&Uint64Flag{Name: "cas", Usage: "a version"},
		&Float64Flag{Name: "rate", Usage: "a rate", Value: 0.5},
		&StringSliceFlag{Name: "join", Usage: "hosts at `HOST,…`", EnvVars: []string{"CLI_TEST_JOIN", "CLI_TEST_ALSO"}},
		&StringFlag{Name: "odd", Usage: "no x", Action: func(_ *Context, s string) error {
			if s == "x" {
				return errors.New("x is refused")
			}
			return nil
		}},
	}
	return &Command{
		Name: "prog", Usage: "a program", Action: act,
		Flags: []Flag{&BoolFlag{Name: "version", Aliases: []string{"v"}, Usage: "print the version", DisableDefaultText: true}},
		Subcommands: []*Command{
			{Name: "get", Usage: "read", ArgsUsage: "KEY…", Description: "First line.\nSecond line.", Flags: flags, Action: act},
			{Name: "config", Usage: "look at it", Subcommands: []*Command{
				{Name: "check", Usage: "check it", ArgsUsage: "FILE", Action: act, Flags: flags[:1]},
			}},
			{Name: "members", Usage: "list them", Flags: flags[:1], Action: act, Subcommands: []*Command{
				{Name: "forget", Usage: "forget one", Flags: flags[:2], Action: act},
			}},
		},
	}
}

func TestRun(t *testing.T) {
	for _, tc := range []struct{ name, line, want string }{
		{"flags first", "get --json k", `prog get ["json=true"] ["k"]`},
		{"flags last", "get k --json", `prog get ["json=true"] ["k"]`},
		{"value after a space", "get k --ns a", `prog get ["ns=a"] ["k"]`},
		{"value after =", "get k --ns=a=b", `prog get ["ns=a=b"] ["k"]`},
		{"empty value", "get k --ns=", `prog get ["ns="] ["k"]`},
		{"one dash", "get k -ns a", `prog get ["ns=a"] ["k"]`},
		{"between arguments", "get k --ttl 30s v", `prog get ["ttl=30s"] ["k" "v"]`},
		{"value with dashes", "get k v --ns --json", `prog get ["ns=--json"] ["k" "v"]`},
		{"negative value", "get k --n -1", `prog get ["n=-1"] ["k"]`},
		{"two dashes end the flags", "get --json -- --ns", `prog get ["json=true"] ["--ns"]`},
		{"two dashes after arguments", "get a -- b --json", `prog get [] ["a" "b" "--json"]`},
		{"two dashes twice", "get -- -- a", `prog get [] ["--" "a"]`},
		{"two dashes as a value", "get --ns -- k", `prog get ["ns=--"] ["k"]`},
		{"two dashes before the command", "-- get --json", `prog get [] ["--json"]`},
		{"negative number", "get k -5", `prog get [] ["k" "-5"]`},
		{"negative fraction", "get k -.5", `prog get [] ["k" "-.5"]`},
		{"lone dash", "get k - --json", `prog get ["json=true"] ["k" "-"]`},
		{"alias", "get -j", `prog get ["json=true"] []`},
		{"bool takes no value", "get --json x", `prog get ["json=true"] ["x"]`},
		{"bool with a value", "get --json=false", `prog get ["json=false"] []`},
		{"the last one counts", "get --ns a --ns b", `prog get ["ns=b"] []`},
		{"numbers", "get --n 0x10 --flags 7 --cas 18446744073709551615 --rate 1e3", `prog get ["cas=18446744073709551615" "flags=7" "n=16" "rate=1000"] []`},
		{"lists", "get --join a,b --join c", `prog get ["join=[a b c]"] []`},
		{"subcommand", "config check f --json", `prog config check ["json=true"] ["f"]`},
		{"both levels", "members forget x --fast", `prog members forget ["fast=true"] ["x"]`},
		{"command with subcommands", "members --json", `prog members ["json=true"] []`},
		{"argument of such a command", "members x --json", `prog members ["json=true"] ["x"]`},
		{"key named help", "get help", `prog get [] ["help"]`},
		{"no help", "get --help=false", `prog get [] []`},
		{"version", "--version", `prog ["version=true"] []`},
		{"no such command", "gets k --json", `prog [] ["gets" "k" "--json"]`},
		{"nothing", "", `prog [] []`},
	} {
		var out bytes.Buffer
		line := append([]string{"prog"}, strings.Fields(tc.line)...)
		given := slices.Clone(line)
		if err := tree(&out).Run(context.Background(), &out, line); err != nil {
			t.Errorf("%s: %q: %v", tc.name, tc.line, err)
		} else if got := out.String(); got != tc.want {
			t.Errorf("%s: %q becomes %s, want %s", tc.name, tc.line, got, tc.want)
		}
		if !slices.Equal(line, given) {
			t.Errorf("%s: the arguments themselves became %q", tc.name, line)
		}
	}
	if err := tree(new(bytes.Buffer)).Run(context.Background(), new(bytes.Buffer), nil); err != nil {
		t.Errorf("no arguments at all: %v", err)
	}
}

func TestErrors(t *testing.T) {
	for _, tc := range []struct {
		line, path string
		want       Error
	}{
		{"config", "prog config", Error{Problem: NoCommand}},
		{"config that", "prog config", Error{Problem: NoCommand, Name: "that", Given: true}},
		{"help that", "prog", Error{Problem: NoCommand, Name: "that", Given: true}},
		{"config help that", "prog config", Error{Problem: NoCommand, Name: "that", Given: true}},
		{"--bogus get", "prog", Error{Problem: UnknownFlag, Name: "bogus"}},
		{"get k --bogus=1", "prog get", Error{Problem: UnknownFlag, Name: "bogus"}},
		{"config check --ns a", "prog config check", Error{Problem: UnknownFlag, Name: "ns"}},
		{"get --ns", "prog get", Error{Problem: NoValue, Name: "ns"}},
		{"get --json=perhaps", "prog get", Error{Problem: BadValue, Name: "json", Value: "perhaps"}},
		{"get --help=perhaps", "prog get", Error{Problem: BadValue, Name: "help", Value: "perhaps"}},
		{"get --ttl soon", "prog get", Error{Problem: BadValue, Name: "ttl", Value: "soon"}},
		{"get --n 1.5", "prog get", Error{Problem: BadValue, Name: "n", Value: "1.5"}},
		{"get --n 9223372036854775808", "prog get", Error{Problem: BadValue, Name: "n", Value: "9223372036854775808"}},
		{"get --flags -1", "prog get", Error{Problem: BadValue, Name: "flags", Value: "-1"}},
		{"get --cas x", "prog get", Error{Problem: BadValue, Name: "cas", Value: "x"}},
		{"get --rate x", "prog get", Error{Problem: BadValue, Name: "rate", Value: "x"}},
		{"get ---json", "prog get", Error{Problem: BadSyntax, Name: "---json"}},
		{"get --=x", "prog get", Error{Problem: BadSyntax, Name: "--=x"}},
	} {
		var out bytes.Buffer
		err := tree(&out).Run(context.Background(), &out, append([]string{"prog"}, strings.Fields(tc.line)...))
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%q: %v, want an Error", tc.line, err)
			continue
		}
		if got := *e; got.Path != tc.path || got.Command == nil || got.Error() == "" || out.Len() > 0 {
			t.Errorf("%q: %v of %q, which printed %q", tc.line, err, got.Path, &out)
		}
		tc.want.Command, tc.want.Path = e.Command, e.Path
		if *e != tc.want {
			t.Errorf("%q: %+v, want %+v", tc.line, *e, tc.want)
		}
	}
	if err := tree(new(bytes.Buffer)).Run(context.Background(), new(bytes.Buffer), []string{"prog", "get", "--odd", "x"}); err == nil || err.Error() != "x is refused" {
		t.Errorf("a flag's own check: %v", err)
	}
}

func TestVariables(t *testing.T) {
	for _, tc := range []struct{ name, variable, text, line, want string }{
		{"text", "CLI_TEST_NS", "a", "get", `prog get ["ns=a"] []`},
		{"flag wins", "CLI_TEST_NS", "a", "get --ns b", `prog get ["ns=b"] []`},
		{"empty text", "CLI_TEST_NS", "", "get", `prog get [] []`},
		{"empty time", "CLI_TEST_TTL", "", "get", `prog get [] []`},
		{"list", "CLI_TEST_JOIN", "a, b", "get", `prog get ["join=[a b]"] []`},
		{"second variable", "CLI_TEST_ALSO", "c", "get", `prog get ["join=[c]"] []`},
		{"list replaced", "CLI_TEST_JOIN", "a, b", "get --join c --join d", `prog get ["join=[c d]"] []`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv(tc.variable, tc.text)
			var out bytes.Buffer
			if err := tree(&out).Run(context.Background(), &out, append([]string{"prog"}, strings.Fields(tc.line)...)); err != nil || out.String() != tc.want {
				t.Errorf("%s, %v; want %s", &out, err, tc.want)
			}
		})
	}
	t.Setenv("CLI_TEST_TTL", "5")
	err := tree(new(bytes.Buffer)).Run(context.Background(), new(bytes.Buffer), []string{"prog", "get"})
	var e *Error
	if !errors.As(err, &e) || e.Problem != BadVariable || e.Name != "ttl" || e.Value != "5" || e.Variable != "CLI_TEST_TTL" {
		t.Errorf("a wrong variable: %v", err)
	}
}

// TestValues checks the getters, with the defaults.
func TestValues(t *testing.T) {
	program := tree(new(bytes.Buffer))
	called := false
	program.Find("get").Action = func(c *Context) error {
		called = true
		if c.Bool("json") || c.String("ns") != "default" || c.Duration("ttl") != time.Minute || c.Int("n") != 3 ||
			c.Uint("flags") != 0 || c.Uint64("cas") != 0 || c.Float64("rate") != 0.5 || c.StringSlice("join") != nil ||
			c.IsSet("ns") || !c.IsSet("ttl") || c.String("absent") != "" || c.NArg() != 2 ||
			c.Args().First() != "a" || c.Args().Get(1) != "b" || c.Args().Get(2) != "" {
			t.Errorf("%+v", c)
		}
		return nil
	}
	if err := program.Run(context.Background(), new(bytes.Buffer), []string{"prog", "get", "a", "--ttl", "1m", "b"}); err != nil || !called {
		t.Errorf("%v; called: %v", err, called)
	}
}

const helpOfProgram = `NAME:
   prog - a program

USAGE:
   prog [global options] command [command options]

COMMANDS:
   get      read
   config   look at it
   members  list them
   help, h  Shows a list of commands or help for one command

GLOBAL OPTIONS:
   --version, -v  print the version
   --help, -h     show help
`

const helpOfGet = `NAME:
   prog get - read

USAGE:
   prog get [command options] KEY…

DESCRIPTION:
   First line.
   Second line.

OPTIONS:
   --json, -j                       print JSON
   --fast                           hurry (default: false)
   --ns NAMESPACE                   the NAMESPACE (default: "default") [$CLI_TEST_NS]
   --ttl TIME                       live this TIME (default: 0s) [$CLI_TEST_TTL]
   -n value                         a number (default: 3)
   --flags value                    bits (default: 0)
   --cas value                      a version (default: 0)
   --rate value                     a rate (default: 0.5)
   --join HOST,… [ --join HOST,… ]  hosts at HOST,… [$CLI_TEST_JOIN, $CLI_TEST_ALSO]
   --odd value                      no x
   --help, -h                       show help
`

const helpOfConfig = `NAME:
   prog config - look at it

USAGE:
   prog config [command options]

COMMANDS:
   check    check it
   help, h  Shows a list of commands or help for one command

OPTIONS:
   --help, -h  show help
`

func TestHelp(t *testing.T) {
	for line, want := range map[string]string{
		"help": helpOfProgram, "h": helpOfProgram, "--help": helpOfProgram, "-h": helpOfProgram, "help help": helpOfProgram, "help -v": helpOfProgram,
		"help get": helpOfGet, "get --help": helpOfGet, "get a b -h --bogus": helpOfGet, "help get more": helpOfGet,
		"help config": helpOfConfig, "config help": helpOfConfig, "config that --help": helpOfConfig,
	} {
		var out bytes.Buffer
		if err := tree(&out).Run(context.Background(), &out, append([]string{"prog"}, strings.Fields(line)...)); err != nil {
			t.Errorf("%q: %v", line, err)
		} else if got := out.String(); got != want {
			t.Errorf("%q prints\n%s\nwant\n%s", line, got, want)
		}
	}
}
