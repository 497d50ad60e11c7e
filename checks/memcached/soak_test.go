package memcached

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

var soakFor = flag.Duration("for", 20*time.Second, "how long TestSoak lasts")

const (
	soakHosts    = 3
	soakKeys     = 20               // of each worker
	restartEvery = 20 * time.Second // one host after the other
	restartGrace = 5.0              // s behind a restart in which calls may still fail
)

// soakRun is one long job.
type soakRun struct {
	target    Target
	addresses []string
	until     time.Time
	events    chan event
	restarts  []window
	stalls    []window
	names     [][]string // of the workers that write keys, by host
}

// TestSoak lets gomemcache, pymemcache and libmemcached's tools do usual jobs on three hosts,
// restarts one host after the other, and explains every answer by what was written. Calls may
// fail while a host restarts, and where the machine stood still.
func TestSoak(t *testing.T) {
	testenv.ReadsClock(t, bound*time.Second, "clients work for a time, and what they read is held to max_staleness")
	needsPymemcache(t)
	target := newTarget(t)
	s := &soakRun{target: target, addresses: target.Start(t, soakHosts), events: make(chan event, 1000)}
	tool(t, s.addresses[0], "memcflush")
	for host := range soakHosts {
		s.names = append(s.names, nil)
		for _, kind := range []string{"go1", "go2", "python", "tools"} {
			s.names[host] = append(s.names[host], kind+"-"+strconv.Itoa(host))
		}
	}
	s.until = time.Now().Add(*soakFor)
	all := s.run(t)
	counts, failed := map[string]int{}, 0
	for _, e := range all {
		client, _, _ := strings.Cut(e.Worker, "-")
		counts[client+" "+e.Op+" "+e.Out]++
		if e.Out == "unknown" {
			failed++
		}
	}
	t.Logf("%d events, %d without an answer, %d restarts, the machine stood still %d times: %v",
		len(all), failed, len(s.restarts), len(s.stalls), counts)
	for _, client := range []string{"go1", "go2", "python", "tools"} {
		for _, op := range []string{"write ok", "read ok"} {
			if counts[client+" "+op] == 0 {
				t.Errorf("there is no %s of %s: the job has tested nothing", op, client)
			}
		}
	}
	if target.OneCache() {
		acrossHosts(t, all)
	}
	found := check(all, slices.Concat(s.restarts, s.stalls))
	for _, f := range found[:min(len(found), 20)] {
		t.Error(f)
	}
	if len(found) > 20 {
		t.Errorf("and %d more", len(found)-20)
	}
	if t.Failed() {
		s.keep(t, all)
	}
}

// hostOf returns the host of a worker: the number behind its kind.
func hostOf(worker string) string { return worker[strings.LastIndexByte(worker, '-')+1:] }

// acrossHosts checks that the hosts were one cache: values were read through other hosts than
// they were written through, and some counter that began once was counted through all hosts.
// Without this, hosts that know nothing of each other would only miss, which is allowed.
func acrossHosts(t *testing.T, all []event) {
	t.Helper()
	read, begun, through := 0, map[string]int{}, map[string]map[string]bool{}
	for _, e := range all {
		owner, _, owned := strings.Cut(e.Key, ":")
		switch {
		case e.Op == "read" && e.Out == "ok" && owned && hostOf(owner) != hostOf(e.Worker):
			read++
		case e.Op == "begin" && e.Out != "failed":
			begun[e.Key]++
		case e.Op == "count" && e.Out == "ok":
			if through[e.Key] == nil {
				through[e.Key] = map[string]bool{}
			}
			through[e.Key][hostOf(e.Worker)] = true
		}
	}
	counted := 0
	for key, hosts := range through {
		if begun[key] <= 1 && len(hosts) == soakHosts {
			counted++
		}
	}
	if t.Logf("%d reads across hosts, %d counters of all hosts", read, counted); read == 0 || counted == 0 {
		t.Error("the hosts are not one cache")
	}
}

// keep writes all events to a file, for a person.
func (s *soakRun) keep(t *testing.T, all []event) {
	t.Helper()
	f, err := os.Create(filepath.Join(os.TempDir(), "memcached-soak.jsonl"))
	if err != nil {
		t.Log(err)
		return
	}
	defer f.Close()
	w := json.NewEncoder(f)
	for _, e := range all {
		_ = w.Encode(e)
	}
	t.Logf("all events are in %s; the restarts: %+v; the machine stood still: %+v", f.Name(), s.restarts, s.stalls)
}

// look finds where the machine stood still: a loop with a short pause did not run.
func (s *soakRun) look(ctx context.Context) {
	for last := now(); ctx.Err() == nil; {
		time.Sleep(20 * time.Millisecond)
		if at := now(); at > last+slack {
			s.stalls = append(s.stalls, window{last, at + restartGrace})
		}
		last = now()
	}
}

// run starts the workers, restarts hosts, and returns all events once the workers have ended.
func (s *soakRun) run(t *testing.T) []event {
	t.Helper()
	var workers sync.WaitGroup
	for host, names := range s.names {
		for _, name := range names {
			workers.Go(func() { // ends at s.until
				switch kind, _, _ := strings.Cut(name, "-"); kind {
				case "python":
					s.python(t, host, name)
				case "tools":
					s.tools(t, host, name)
				default:
					newGoWorker(s, host, name).work()
				}
			})
		}
	}
	var all []event
	collected := make(chan struct{})
	go func() { // ends with the workers
		defer close(collected)
		for e := range s.events {
			all = append(all, e)
		}
	}()
	ctx, stop := context.WithCancel(t.Context())
	workers.Go(func() { s.look(ctx) })
	for i := 0; time.Until(s.until) > restartEvery/2; i++ {
		time.Sleep(min(restartEvery, time.Until(s.until)/2))
		w := window{start: now() - slack}
		s.target.Restart(t, i%soakHosts)
		w.end = now() + restartGrace
		s.restarts = append(s.restarts, w)
	}
	time.Sleep(time.Until(s.until))
	stop()
	workers.Wait()
	close(s.events)
	<-collected
	return all
}

// readable returns the workers whose keys a worker of a host may read: all, if the hosts are
// one cache.
func (s *soakRun) readable(host int) (list []string) {
	for h, names := range s.names {
		if h == host || s.target.OneCache() {
			list = append(list, names...)
		}
	}
	return list
}

// counters returns the end of the names of the counters that a host shares.
func (s *soakRun) counters(host int) string {
	if s.target.OneCache() {
		return ""
	}
	return "-" + strconv.Itoa(host)
}

// python runs a worker with pymemcache.
func (s *soakRun) python(t *testing.T, host int, name string) {
	ctx, cancel := context.WithDeadline(context.Background(), s.until.Add(time.Minute))
	defer cancel()
	cmd := exec.CommandContext(ctx, python, "testdata/soak.py", s.addresses[host], name,
		fmt.Sprint(time.Until(s.until).Seconds()), s.counters(host), strings.Join(s.readable(host), ","))
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Error(err)
		return
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Errorf("%s: %v: %s", name, err, lines.Bytes())
			continue
		}
		s.events <- e
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%s: %v: %s", name, err, complaint.String())
	}
}

// tools runs libmemcached's tools, in turn. Their status says little: what fails has an
// unknown outcome only if the tool says more than that the key is not there.
func (s *soakRun) tools(t *testing.T, host int, name string) {
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		t.Error(err)
		return
	}
	defer os.RemoveAll(dir)
	for seq := 1; time.Now().Before(s.until); seq++ {
		key := fmt.Sprintf("%s:k%d", name, seq%soakKeys)
		value := fmt.Sprintf("%s %d", key, seq)
		file := filepath.Join(dir, key)
		if err := os.WriteFile(file, []byte(value), 0o600); err != nil {
			t.Error(err)
			return
		}
		s.tool(t, host, event{Worker: name, Op: "write", Key: key, Seq: seq, Value: value}, "memccp", file)
		s.tool(t, host, event{Worker: name, Op: "read", Key: key}, "memccat", key)
		s.tool(t, host, event{Worker: name, Op: "touch", Key: key}, "memctouch", "--expire=600", key)
		s.tool(t, host, event{Worker: name, Op: "exist", Key: key}, "memcexist", key)
		if seq%3 == 0 {
			s.tool(t, host, event{Worker: name, Op: "write", Key: key, Seq: seq}, "memcrm", key)
			s.tool(t, host, event{Worker: name, Op: "read", Key: key}, "memccat", key)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// tool runs one tool and records it.
func (s *soakRun) tool(t *testing.T, host int, e event, name string, args ...string) {
	e.Start = now()
	out, ok := tool(t, s.addresses[host], name, args...)
	e.End = now()
	missing := strings.Contains(out, "NOT FOUND") || strings.Contains(out, "not found")
	switch {
	case ok || e.Op == "write" && missing: // what is deleted is gone, if it was there or not
		e.Out = "ok"
	case missing || out == "" && e.Op != "write":
		e.Out = "miss"
	default:
		e.Out, e.Error = "unknown", out
	}
	if e.Op == "read" && ok {
		e.Value = strings.TrimSuffix(out, "\n")
	}
	s.events <- e
}
