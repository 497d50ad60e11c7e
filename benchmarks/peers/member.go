package peers

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/cachesidecar/cachesidecar/benchmarks/member"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/load"
)

// memberBinary is the program that runs a library's node.
const memberBinary = "member"

// Member is a process that runs a library's node and makes the load on itself. One
// goroutine uses it at a time.
type Member struct {
	Version   string // of the library; empty for the sidecar
	dir       string
	cmd       *exec.Cmd
	orders    io.WriteCloser
	answers   *json.Decoder
	complaint bytes.Buffer
}

// memberKinds maps the names of sides to the kinds of node and their libraries.
var memberKinds = map[string]struct{ kind, library string }{
	record.Embedded:   {"sidecar", ""},
	record.Groupcache: {"groupcache", "groupcache-go"},
	record.Olric:      {"olric", "olric"},
}

// MemberOptions are the options of a node.
type MemberOptions struct {
	Options
	Self string   // the node's address
	All  []string // the addresses of all nodes
	Asks bool     // true: it asks another node; false: it owns the keys
	// Origin is the URL that the node loads from. If it is set, the node takes crowd
	// orders.
	Origin string
	// For a node that asks:
	Keys    int
	Workers int // concurrent workers
}

// StartMember runs a node and returns once it serves, or can take orders.
func StartMember(ctx context.Context, name string, o MemberOptions) (*Member, error) {
	kind, ok := memberKinds[name]
	if !ok {
		return nil, fmt.Errorf("there is no library %q", name)
	}
	binary := filepath.Join(o.Dir, memberBinary)
	m := &Member{dir: o.Dir}
	if kind.library != "" {
		info, err := buildinfo.ReadFile(binary)
		if err != nil {
			return nil, err
		}
		m.Version = record.LibrariesOf(info)[kind.library]
	}
	m.cmd = exec.CommandContext(ctx, binary, "-self", o.Self, "-all", strings.Join(o.All, ","), "-dir", o.Dir,
		"-limit", strconv.FormatInt(o.Bytes, 10), "-asks="+strconv.FormatBool(o.Asks), "-origin", o.Origin,
		"-keys", strconv.Itoa(o.Keys), "-workers", strconv.Itoa(o.Workers),
		"-key-size", strconv.Itoa(o.KeySize), "-value-size", strconv.Itoa(o.ValueSize), kind.kind)
	m.cmd.Stderr = &m.complaint
	m.cmd.Cancel = func() error { return m.cmd.Process.Signal(syscall.SIGTERM) }
	m.cmd.WaitDelay = stopTime
	var err error
	if m.orders, err = m.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	answers, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	m.answers = json.NewDecoder(answers)
	if err := m.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s does not start: %w", name, err)
	}
	var r member.Ready
	if err := m.answers.Decode(&r); err != nil || !r.Ready {
		m.Close()
		return nil, fmt.Errorf("%s ended at once (%v): %s", name, m.cmd.ProcessState, bytes.TrimSpace(m.complaint.Bytes()))
	}
	return m, nil
}

// Socket returns the socket of an embedded sidecar.
func (m *Member) Socket() string { return filepath.Join(m.dir, "embedded.sock") }

// Run makes the load for warmUp, then for d, and returns the result of the latter.
func (m *Member) Run(_ context.Context, warmUp, d time.Duration) (load.Result, error) {
	var a member.Answer
	if err := m.execute(member.Order{WarmUp: warmUp, Turn: d}, &a); err != nil {
		return load.Result{}, err
	}
	if a.Error != "" {
		return load.Result{}, errors.New(a.Error)
	}
	return load.Result{Requests: a.Requests, Hits: a.Hits, Elapsed: d, Latency: hdrhistogram.Import(a.Latency)}, nil
}

// Crowd makes a node with an origin ask for one key many times at once.
func (m *Member) Crowd(o member.CrowdOrder) (a member.CrowdAnswer, err error) {
	err = m.execute(o, &a)
	return a, err
}

// execute sends an order and reads its answer.
func (m *Member) execute(order, answer any) error {
	err := json.NewEncoder(m.orders).Encode(order)
	if err == nil {
		err = m.answers.Decode(answer)
	}
	if err != nil {
		return m.said(err)
	}
	return nil
}

// said ends the process and adds its standard error to err.
func (m *Member) said(err error) error {
	m.Close()
	return fmt.Errorf("%w: %s", err, bytes.TrimSpace(m.complaint.Bytes()))
}

// Close ends the node and waits for it.
func (m *Member) Close() {
	_ = m.orders.Close()
	if m.cmd.ProcessState != nil {
		return
	}
	timer := time.AfterFunc(stopTime, func() { _ = m.cmd.Process.Kill() })
	defer timer.Stop()
	_ = m.cmd.Wait()
}
