package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// clientCommands are the commands that ask a sidecar, each as a valid command line.
var clientCommands = []string{
	"get k", "get a b", "set k v", "del k", "touch k", "incr k", "ttl k", "ttl a b", "ping", "top --once", "stats", "stats --watch", "stats --cluster", "stats --cluster --watch", "flush --yes", "flush --yes --cluster", "members", "ring k", "warm -", "bench", "health",
}

func TestStatusOfAbsentSidecar(t *testing.T) {
	dir := tempDir(t)
	plain := filepath.Join(dir, "plain")
	stale := filepath.Join(dir, "stale")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	testenv.Must(t, err)
	ln.SetUnlinkOnClose(false)
	ln.Close()
	if o := command(t, "", "version"); o.status != exitDone {
		t.Errorf("version asks no sidecar: %v", o)
	}
	for _, line := range clientCommands {
		for _, socket := range []string{plain, stale} {
			o := command(t, "", append(strings.Fields(line), "--socket", socket)...)
			if o.status != exitConnect || o.out != "" || !strings.Contains(o.err, socket) || !strings.Contains(o.err, `"cachesidecar run"`) {
				t.Errorf("%s --socket %s: %v\nwant status %d, the path and the remedy", line, socket, o, exitConnect)
			}
		}
		// Without --socket, the message names the places that were searched.
		t.Setenv("CACHESIDECAR_SOCKET", plain)
		command(t, "", strings.Fields(line)...).fails(t, line, exitConnect, "no socket found at "+plain)
	}
}

// fakeSidecar listens and calls serve for each connection.
func fakeSidecar(t *testing.T, serve func(net.Conn)) (socket string) {
	t.Helper()
	socket = filepath.Join(tempDir(t), "s")
	ln, err := net.Listen("unix", socket)
	testenv.Must(t, err)
	done := make(chan struct{})
	go func() { // ends when the listener is closed
		defer close(done)
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			serve(nc)
			_ = nc.Close()
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
	})
	return socket
}

// silent reads everything and sends nothing.
func silent(nc net.Conn) { _, _ = io.Copy(io.Discard, nc) }

// helloThen answers HELLO, with e unless that is nil, and calls then.
func helloThen(e *wire.Error, then func(net.Conn)) func(net.Conn) {
	return func(nc net.Conn) {
		frame, err := readFrame(nc)
		if err != nil {
			return
		}
		id, _ := wire.PeekID(frame)
		var answer []byte
		if e != nil {
			answer = wire.AppendError(nil, id, e)
		} else {
			body := wire.MarshalBody(wire.Welcome{Version: wire.Version, Node: "fake"})
			answer = wire.AppendReply(nil, wire.OpHello, &wire.Reply{ID: id, Body: body})
		}
		if _, err := nc.Write(answer); err == nil {
			then(nc)
		}
	}
}

// answering answers every request after HELLO with the same reply.
func answering(r wire.Reply) func(net.Conn) {
	return helloThen(nil, func(nc net.Conn) {
		for {
			frame, err := readFrame(nc)
			if err != nil {
				return
			}
			var q wire.Request
			if err := wire.DecodeRequest(frame, &q); err != nil {
				return
			}
			r.ID = q.ID
			if _, err := nc.Write(wire.AppendReply(nil, q.Op, &r)); err != nil {
				return
			}
		}
	})
}

// TestStatusOfHostsThatAreAway checks that a sidecar's message about other hosts is not
// mistaken for one about itself.
func TestStatusOfHostsThatAreAway(t *testing.T) {
	refusal := func(s wire.Status, text string) func(net.Conn) {
		return answering(wire.Reply{Status: s, Message: []byte(text)})
	}
	for _, tc := range []struct {
		name, line string
		serve      func(net.Conn)
		status     int
		want       string
	}{
		{"write", "set k v", refusal(wire.Unavailable, "b, which owns the key, cannot be reached"), exitMiss,
			"b, which owns the key, cannot be reached (nothing was done; \"cachesidecar members\" shows the hosts)"},
		{"read", "get k", answering(wire.Reply{Status: wire.Miss, Why: wire.Degraded}), exitMiss, "k: not found: the host that owns the key cannot be reached"},
		{"fresh read", "get k --fresh", refusal(wire.Unavailable, "b did not answer"), exitMiss, "b did not answer (nothing was done;"},
		{"write without an answer", "set k v", refusal(wire.Timeout, "b did not answer in time"), exitTimeout, "b did not answer in time"},
		{"flush that one did not acknowledge", "flush --yes", refusal(wire.Timeout, "b was not flushed, the others were"), exitTimeout, "b was not flushed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := command(t, "", append(strings.Fields(tc.line), "--socket", fakeSidecar(t, tc.serve), "--timeout", "5s")...)
			if o.status != tc.status || o.out != "" || !strings.Contains(o.err, tc.want) || strings.Contains(o.err, "cachesidecar run") {
				t.Errorf("%v\nwant status %d and %q", o, tc.status, tc.want)
			}
		})
	}
}

// TestHealthOf checks that health fails only if the sidecar is not ready, and names what is
// wrong with one that serves.
func TestHealthOf(t *testing.T) {
	for _, tc := range []struct {
		name     string
		st       cachesidecar.Stats
		status   int
		out, err string
	}{
		{"well", cachesidecar.Stats{}, exitDone, "serving\n", ""},
		{"a host is missing", cachesidecar.Stats{Members: map[string]int64{"missing": 1}}, exitDone,
			"serving, not well: missing hosts: 1 (`cachesidecar members` names them)\n", ""},
		{"not joined", cachesidecar.Stats{NotReady: "not joined: another key"}, exitMiss, "",
			"cachesidecar: not ready: not joined: another key\n"},
		{"hostile", cachesidecar.Stats{NotReady: "\x1b[2J"}, exitMiss, "", "cachesidecar: not ready: \\x1b[2J\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			body := wire.MarshalBody(tc.st)
			o := command(t, "", "health", "--socket", fakeSidecar(t, answering(wire.Reply{Body: body})))
			if o.status != tc.status || o.out != tc.out || o.err != tc.err {
				t.Errorf("%v\nwant status %d, %q and %q", o, tc.status, tc.out, tc.err)
			}
		})
	}
}

func TestStatusOfSidecarThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 2*time.Second)
	for _, tc := range []struct {
		name  string
		serve func(net.Conn)
	}{
		{"from the start", silent},
		{"after HELLO", helloThen(nil, silent)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			socket := fakeSidecar(t, tc.serve)
			for _, line := range clientCommands {
				want, wantErr := exitTimeout, "--timeout is 50ms"
				if line == "health" {
					want, wantErr = exitMiss, "it is up and does not answer"
				}
				o := command(t, "", append(strings.Fields(line), "--socket", socket, "--timeout", "50ms")...)
				if o.status != want || o.out != "" || !strings.Contains(o.err, wantErr) {
					t.Errorf("%s: %v\nwant status %d and %q", line, o, want, wantErr)
				}
			}
		})
	}
}

func TestStatusOfErrors(t *testing.T) {
	unsupported := wire.Errorf(wire.Unsupported, "protocol versions [1]: this sidecar speaks [9]")
	for _, tc := range []struct {
		name, line string
		serve      func(net.Conn)
		status     int
		want       string
	}{
		{"closed at once", "get k", func(net.Conn) {}, exitConnect, "no HELLO"},
		{"closed at once: ping", "ping", func(net.Conn) {}, exitConnect, "no HELLO"},
		{"closed at once: bench", "bench", func(net.Conn) {}, exitConnect, "no HELLO"},
		{"another version", "get k", helloThen(unsupported, silent), exitMiss, "this sidecar speaks [9]"},
		{"another version: bench", "bench", helloThen(unsupported, silent), exitMiss, "this sidecar speaks [9]"},
		{"closed after a write", "incr k", helloThen(nil, func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) }), exitTimeout, "closed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			socket := fakeSidecar(t, tc.serve)
			o := command(t, "", append(strings.Fields(tc.line), "--socket", socket, "--timeout", "5s")...)
			if o.status != tc.status || o.out != "" || !strings.Contains(o.err, tc.want) {
				t.Errorf("%v\nwant status %d and %q", o, tc.status, tc.want)
			}
		})
	}
}

// TestHealthOfAFullSidecar checks that a sidecar that refuses a connection is not called absent:
// it serves those that it has.
func TestHealthOfAFullSidecar(t *testing.T) {
	socket := serveWith(t, sidecar.Config{MaxConnections: 2})
	if out := mustRun(t, "health"); out != "serving\n" {
		t.Errorf("at first: %q", out)
	}
	for range 2 {
		testenv.Succeeds(t, "another connection, once those of health have gone", func() error {
			cl, err := client.Dial(t.Context(), client.Config{Socket: socket, Conns: 1, NoSharedMemory: true})
			if err == nil {
				t.Cleanup(func() { _ = cl.Close() })
			}
			return err
		})
	}
	const want = "serving, not well: it refuses this connection: all connections of the socket are taken, or it is about to end\n"
	testenv.Succeeds(t, "health of a full sidecar", func() error {
		if o := command(t, "", "health"); o.status != exitDone || o.out != want || o.err != "" {
			return fmt.Errorf("%v", o)
		}
		return nil
	})
}

// TestStatusOfRefusals checks that an invalid request is a usage error, and that a
// refusal because of what is stored, or of its size, is not.
func TestStatusOfRefusals(t *testing.T) {
	serveHere(t)
	mustRun(t, "set", "text", "abc")
	mustRun(t, "set", "number", "9223372036854775807")
	long := strings.Repeat("k", 1025)
	for _, tc := range []struct {
		name, in string
		args     []string
		status   int
		want     string
	}{
		{"miss", "", []string{"get", "none"}, exitMiss, "none: not found"},
		{"one of many is missing", "", []string{"get", "text", "none"}, exitMiss, "none: not found"},
		{"miss as JSON", "", []string{"get", "none", "--json"}, exitMiss, ""},
		{"nothing to delete", "", []string{"del", "none", "nor"}, exitMiss, "none, nor: not found"},
		{"nothing to touch", "", []string{"touch", "text", "none"}, exitMiss, "none: not found"},
		{"nothing to add to", "", []string{"incr", "none"}, exitMiss, "none: not found"},
		{"no host to forget", "", []string{"members", "forget", ""}, exitUsage, `members forget "": give the name of a host`},
		{"this host to forget", "", []string{"members", "forget", "host1"}, exitUsage, "host1 is this very host: to take it out of the cluster, stop it"},
		{"a host to forget that there is not", "", []string{"members", "forget", "d"}, exitMiss, `no host knows d: "cachesidecar members" lists those that are known`},
		{"swap of what is not there", "", []string{"set", "none", "x", "--cas", "1"}, exitMiss, "none: not found"},
		{"add of what is there", "", []string{"set", "text", "x", "--add"}, exitMiss, "condition is not met"},
		{"replace of what is not there", "", []string{"set", "none", "x", "--replace"}, exitMiss, "none: not found"},
		{"cas of another version", "", []string{"set", "text", "x", "--cas", "1"}, exitMiss, "condition is not met: version"},
		{"no number", "", []string{"incr", "text"}, exitMiss, "no decimal 64-bit number"},
		{"overflow", "", []string{"incr", "number"}, exitMiss, "does not fit into 64 bits"},
		{"value too large", strings.Repeat("v", 4<<20+1), []string{"set", "k", "-"}, exitMiss, "the value has 4194305 bytes"},
		{"frame too large", strings.Repeat("v", 5<<20), []string{"set", "k", "-"}, exitMiss, "the value has 5242880 bytes"},
		{"empty key", "", []string{"get", ""}, exitUsage, "the key has 0 bytes: a key has 1 to 1024"},
		{"long key", "", []string{"get", long}, exitUsage, "the key has 1025 bytes: a key has 1 to 1024"},
		{"set of a long key", "", []string{"set", long, "v"}, exitUsage, "the key has 1025 bytes"},
		{"namespace", "", []string{"get", "k", "--ns", "A"}, exitUsage, `namespace "A": a name is 1 to 64 of`},
		{"namespace of bench", "", []string{"bench", "--ns", "A"}, exitUsage, `namespace "A": a name is 1 to 64 of`},
		{"namespace of flush", "", []string{"flush", "--yes", "--ns", "A"}, exitUsage, `namespace "A": a name is 1 to 64 of`},
		{"namespace of ring", "", []string{"ring", "k", "--ns", "A"}, exitUsage, `namespace "A": a name is 1 to 64 of`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := command(t, tc.in, tc.args...)
			if o.status != tc.status || !strings.Contains(o.err, tc.want) || tc.want == "" && o.err != "" || strings.Contains(tc.want, "bytes") && strings.Contains(o.err, "Run ") {
				t.Errorf("%v\nwant status %d and %q", o, tc.status, tc.want)
			}
		})
	}
	if got := mustRun(t, "get", "text"); got != "abc" {
		t.Errorf("text is %q after all that was refused", got)
	}
}

// TestInterrupt checks that an interrupt ends a waiting command at once.
func TestInterrupt(t *testing.T) {
	waits := make(chan struct{}, 1)
	socket := fakeSidecar(t, func(nc net.Conn) {
		waits <- struct{}{}
		silent(nc)
	})
	for _, line := range []string{"get k", "health", "bench", "stats --watch", "set k -"} {
		t.Run(line, func(t *testing.T) {
			end := make(chan struct{})
			defer close(end)
			in := readerFunc(func([]byte) (int, error) {
				waits <- struct{}{}
				<-end
				return 0, io.EOF
			})
			ctx, interrupt := context.WithCancel(t.Context())
			go func() { // ends when the command waits
				<-waits
				interrupt()
			}()
			var out, err bytes.Buffer
			args := append([]string{"cachesidecar"}, strings.Fields(line)...)
			status := (&program{in: in, out: &out, err: &err}).run(ctx, append(args, "--socket", socket, "--timeout", "1h"))
			want, wantErr := exitMiss, "cachesidecar: interrupted\n"
			if line == "stats --watch" {
				want, wantErr = exitDone, ""
			}
			if status != want || err.String() != wantErr {
				t.Errorf("status %d, %q\nwant status %d and %q", status, err.String(), want, wantErr)
			}
		})
	}
}

// readerFunc is an io.Reader.
type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }
