package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// TestSuggestions checks what is suggested for words that name no command or flag.
func TestSuggestions(t *testing.T) {
	for _, tc := range []struct{ line, want string }{
		{"hepl", `there is no command "hepl": did you mean "help"?`},
		{"gte k", `did you mean "get"?`},
		{"GET k", `did you mean "get"?`},
		{"mgett k", `did you mean "mget"?`},
		{"delte k", `did you mean "delete"?`},
		{"tll k", `did you mean "ttl"?`},
		{"xyzzy", `there is no command "xyzzy": see "cachesidecar help"`},
		{"info", `there is no command "info": try "cachesidecar stats". See "cachesidecar help"`},
		{"INFO", `there is no command "INFO": try "cachesidecar stats".`},
		{"help info", `there is no command "info": try "cachesidecar stats".`},
		{"stop --now", `try SIGTERM: "cachesidecar stats" shows`},
		{"config info", `there is no command "config info": see "cachesidecar help config"`},
		{"config chekc f", `there is no command "config chekc": did you mean "check"? See "cachesidecar help config"`},
		{"help config chek", `there is no command "config chek": did you mean "check"?`},
		{"config help chek", `there is no command "config chek": did you mean "check"?`},
		{"config h chek", `there is no command "config chek": did you mean "check"?`},
		{"members forgt b", `there is no command "members forgt": did you mean "forget"? See "cachesidecar help members"`},
		{"get k --namespace x", "get has no flag --namespace: did you mean --ns?"},
		{"get k -n x", "get has no flag -n: did you mean --ns?"},
		{"ping -n 3", "ping has no flag -n: did you mean --count?"},
		{"set k v --EX 3", "set has no flag --EX: did you mean --ttl?"},
		{"flush --force", "flush has no flag --force: did you mean --yes?"},
		{"flush --yse", "flush has no flag --yse: did you mean --yes?"},
		{"get k -x", `get has no flag -x: see "cachesidecar get --help"`},
		{"members forget b --jsn", `forget has no flag --jsn: see "cachesidecar members forget --help"`},
	} {
		if o := command(t, "", strings.Fields(tc.line)...); o.status != exitUsage || !strings.Contains(o.err, tc.want) || o.out != "" {
			t.Errorf("%s: %v\nwant status %d and %q", tc.line, o, exitUsage, tc.want)
		}
	}
}

var suggested = regexp.MustCompile(`"cachesidecar ([^"]+)"`)

// TestOtherWords checks that the words of other programs are not used here, and that what
// is suggested for them exists.
func TestOtherWords(t *testing.T) {
	app := (&program{}).app()
	for word, instead := range otherCommands {
		if find(app.Commands, word) != nil {
			t.Errorf("%s is a command", word)
		}
		for _, m := range suggested.FindAllStringSubmatch(instead, -1) {
			var last *cli.Command
			commands := app.Commands
			for _, w := range strings.Fields(m[1]) {
				if name, isFlag := strings.CutPrefix(w, "--"); isFlag {
					if last == nil || !hasFlag(last, name) {
						t.Errorf("%s: %q: there is no %s", word, m[0], w)
					}
				} else if c := find(commands, w); c != nil {
					last, commands = c, c.Subcommands
				} else if last == nil {
					t.Errorf("%s: %q is no command", word, w)
				}
			}
		}
	}
	for word, names := range otherFlags {
		for _, name := range names {
			found := false
			for _, c := range allCommands() {
				found = found || hasFlag(c, name)
			}
			if !found {
				t.Errorf("%s: no command has --%s", word, name)
			}
		}
	}
}

func hasFlag(c *cli.Command, name string) bool {
	for _, f := range c.Flags {
		for _, n := range f.Names() {
			if n == name {
				return true
			}
		}
	}
	return false
}
