package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

func TestReorder(t *testing.T) {
	for _, tc := range []struct{ name, line, want string }{
		{"flags first", "get --json k", "get --json -- k"},
		{"flags last", "get k --json", "get --json -- k"},
		{"value after a space", "get k --ns a", "get --ns a -- k"},
		{"value after =", "get k --ns=a", "get --ns=a -- k"},
		{"one dash", "get k -ns a", "get -ns a -- k"},
		{"between arguments", "set k --ttl 30s v", "set --ttl 30s -- k v"},
		{"value with dashes", "set k v --ttl --add", "set --ttl --add -- k v"},
		{"two dashes end the flags", "get --json -- --ns", "get --json -- --ns"},
		{"two dashes after arguments", "get a -- b --json", "get -- a b --json"},
		{"two dashes twice", "get -- -- a", "get -- -- a"},
		{"two dashes as a value", "get --ns -- k", "get --ns -- -- k"},
		{"negative number", "incr k -5", "incr -- k -5"},
		{"negative fraction", "incr k -.5", "incr -- k -.5"},
		{"stdin", "set k - --add", "set --add -- k -"},
		{"alias", "flush -y", "flush -y"},
		{"bool takes no value", "flush --yes x", "flush --yes -- x"},
		{"value missing", "get k --ns", "get --ns"},
		{"unknown flag takes no value", "get --bogus v", "get --bogus -- v"},
		{"subcommand", "config check f --help", "config check --help"},
		{"help with arguments", "get a b --help", "get --help"},
		{"help of a command", "help get", "get --help"},
		{"help of a subcommand", "help config check", "config check --help"},
		{"version", "--version", "--version"},
		{"help of nothing", "help nothing", "nothing"},
		{"key named help", "get help", "get -- help"},
		{"no such command", "gets k --json", "gets k --json"},
		{"nothing", "", ""},
	} {
		args := append([]string{"cachesidecar"}, strings.Fields(tc.line)...)
		given := slices.Clone(args)
		got := reorder((&program{}).app(), args)
		if want := append([]string{"cachesidecar"}, strings.Fields(tc.want)...); !slices.Equal(got, want) {
			t.Errorf("%s: %q becomes %q, want %q", tc.name, tc.line, got, want)
		}
		if !slices.Equal(args, given) {
			t.Errorf("%s: the arguments themselves became %q", tc.name, args)
		}
	}
	if got := reorder((&program{}).app(), nil); len(got) != 0 {
		t.Errorf("no arguments at all become %q", got)
	}
}

// TestKeys runs a series of command lines, each with its stdin and the expected stdout.
func TestKeys(t *testing.T) {
	serveHere(t)
	binary := string([]byte{0, 1, '\n', 0xff, '\r', '\n'})
	for _, step := range []struct {
		args    []string
		in, out string
	}{
		{[]string{"set", "a", "1"}, "", ""},
		{[]string{"get", "a"}, "", "1"},
		{[]string{"set", "bytes", "-"}, binary, ""},
		{[]string{"get", "bytes"}, "", binary},
		{[]string{"set", "empty", ""}, "", ""},
		{[]string{"get", "empty"}, "", ""},
		{[]string{"set", "empty stdin", "-"}, "", ""},
		{[]string{"get", "empty stdin"}, "", ""},
		{[]string{"get", "a", "bytes", "a"}, "", "a\t1\nbytes\t" + binary + "\na\t1\n"},
		{[]string{"get", "a", "--fresh"}, "", "1"},
		// Flags may be anywhere; -- ends them.
		{[]string{"set", "--ttl", "30s", "b", "2"}, "", ""},
		{[]string{"set", "b", "3", "--ttl=30s", "--flags", "7"}, "", ""},
		{[]string{"get", "--ns=default", "b"}, "", "3"},
		{[]string{"get", "b", "--ns", "other", "--ns", "default"}, "", "3"},
		{[]string{"set", "--", "--json", "--ttl"}, "", ""},
		{[]string{"get", "--", "--json"}, "", "--ttl"},
		{[]string{"set", "--", "--", "two dashes"}, "", ""},
		{[]string{"get", "--", "--"}, "", "two dashes"},
		// Arguments that look like flags or commands.
		{[]string{"set", "-", "dash"}, "", ""},
		{[]string{"get", "-"}, "", "dash"},
		{[]string{"set", "-7", "-8"}, "", ""},
		{[]string{"get", "-7"}, "", "-8"},
		{[]string{"set", "help", "me"}, "", ""},
		{[]string{"get", "help"}, "", "me"},
		{[]string{"set", "h", "get"}, "", ""},
		{[]string{"get", "h"}, "", "get"},
		{[]string{"del", "help", "h"}, "", ""},
		{[]string{"set", "ns", "a flag's name"}, "", ""},
		{[]string{"get", "ns"}, "", "a flag's name"},
		// Conditions.
		{[]string{"set", "c", "1", "--add"}, "", ""},
		{[]string{"set", "c", "2", "--replace"}, "", ""},
		{[]string{"set", "c", "3", "--ack", "all"}, "", ""},
		{[]string{"get", "c"}, "", "3"},
		// Numbers.
		{[]string{"incr", "n", "--initial", "-5"}, "", "-5\n"},
		{[]string{"incr", "n"}, "", "-4\n"},
		{[]string{"incr", "n", "-6"}, "", "-10\n"},
		{[]string{"incr", "n", "--ns", "default", "+12"}, "", "2\n"},
		{[]string{"incr", "n", "-9223372036854775808"}, "", "-9223372036854775806\n"},
		// TTLs.
		{[]string{"touch", "a", "b", "--ttl", "0"}, "", ""},
		{[]string{"touch", "c", "--ttl", "8760h"}, "", ""},
		{[]string{"set", "d", "1", "--ttl", "1ns"}, "", ""},
		// Namespaces.
		{[]string{"set", "a", "other's", "--ns", "other"}, "", ""},
		{[]string{"get", "a", "--ns", "other"}, "", "other's"},
		{[]string{"flush", "--ns", "other", "--yes"}, "", ""},
		{[]string{"get", "a"}, "", "1"},
		{[]string{"del", "a", "none"}, "", ""},
		{[]string{"flush", "-y"}, "", ""},
		{[]string{"ring", "a"}, "", "partition 7175, assigned to host1, owned by host1\n"},
		{[]string{"health"}, "", "serving\n"},
	} {
		o := command(t, step.in, step.args...)
		if o.status != exitDone || o.out != step.out || o.err != "" {
			t.Errorf("%q: %v\nwant stdout %q", step.args, o, step.out)
		}
	}
	if o := command(t, "", "get", "c"); o.status != exitMiss {
		t.Errorf("after flush: %v", o)
	}
}

// TestReadValue checks that a value above the maximum size is refused, not cut.
func TestReadValue(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   io.Reader
		want string
	}{
		{"as long as may be", strings.NewReader("12345"), ""},
		{"longer", strings.NewReader("123456"), "stdin has more than 5 bytes, the most that a value may have: split it"},
		{"fails", readerFunc(func([]byte) (int, error) { return 0, errors.New("pipe burst") }), "cannot read the value from stdin: pipe burst"},
	} {
		value, err := readValue(t.Context(), tc.in, 5)
		switch {
		case tc.want == "" && (err != nil || string(value) != "12345"):
			t.Errorf("%s: %q, %v", tc.name, value, err)
		case tc.want != "" && (err == nil || err.Error() != tc.want):
			t.Errorf("%s: %q, %v, want %q", tc.name, value, err, tc.want)
		}
	}
}

// TestFullStdout checks that a command fails if its output cannot be written.
func TestFullStdout(t *testing.T) {
	serveHere(t)
	mustRun(t, "set", "k", "1")
	full := writerFunc(func([]byte) (int, error) { return 0, errors.New("disk is full") })
	config := testenv.File(t, "")
	for _, line := range []string{
		"get k", "get k k", "get k --json", "set k 1 --json", "incr k", "del x k --json", "stats", "stats --json", "stats --watch", "members",
		"ring k", "health", "ttl k", "ttl k k", "ttl k --json", "ping", "ping --json", "top --once --interval 200ms", "version", "version --json", "bench --duration 1ms --keys 1", "config check " + config,
	} {
		mustRun(t, "set", "k", "1")
		var err bytes.Buffer
		status := commandWith(t, &program{in: strings.NewReader(""), out: full, err: &err}, strings.Fields(line)...)
		if status != exitMiss || !strings.Contains(err.String(), "disk is full") {
			t.Errorf("%s: status %d, %q", line, status, err.String())
		}
	}
}

// writerFunc is an io.Writer.
type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// TestEmptyNamespace checks that an empty name, for example from an unset shell variable,
// means neither all namespaces nor the default one.
func TestEmptyNamespace(t *testing.T) {
	serveHere(t)
	command(t, "", "set", "a", "1")
	for _, args := range [][]string{
		{"flush", "--yes", "--ns", ""}, {"set", "b", "2", "--ns", ""}, {"watch", "a", "--ns", ""}, {"bench", "--duration", "1ms", "--keys", "1", "--ns", ""},
	} {
		if o := command(t, "", args...); o.status != exitUsage {
			t.Errorf("%q: %v, want status %d", args, o, exitUsage)
		}
	}
	if o := command(t, "", "get", "a"); o.status != exitDone {
		t.Errorf("get a: %v: it has been flushed", o)
	}
}

// TestOneKeyFails checks that get and ttl print what is there if one key of several fails.
func TestOneKeyFails(t *testing.T) {
	serveWith(t, sidecar.Config{Namespaces: map[string]sidecar.Namespace{"rows": {Origin: loader.Custom{
		Source: loader.SourceFunc(func(_ context.Context, key []byte) (loader.Value, error) {
			if key[0] == 'b' {
				return loader.Value{}, errors.New("the row is damaged")
			}
			return loader.Value{Bytes: []byte("v")}, nil
		}),
	}}}})
	o := command(t, "", "get", "a", "b", "c", "--ns", "rows")
	if o.status != exitMiss || o.out != "a\tv\nc\tv\n" || strings.Count(o.err, "the origin failed") != 1 || !strings.Contains(o.err, `key "b"`) {
		t.Error(o)
	}
	o = command(t, "", "get", "a", "b", "b2", "--ns", "rows")
	if o.status != exitMiss || o.out != "a\tv\n" || strings.Count(o.err, "the origin failed") != 2 ||
		!strings.Contains(o.err, `key "b"`) || !strings.Contains(o.err, "b2: ") {
		t.Error(o)
	}
	var items []jsonItem
	o = command(t, "", "get", "a", "b", "--ns", "rows", "--json")
	if err := json.Unmarshal([]byte(o.out), &items); err != nil || len(items) != 2 || !items[0].Found || items[0].Error != "" ||
		items[1].Found || !strings.Contains(items[1].Error, "the origin failed") {
		t.Error(err, o)
	}
}
