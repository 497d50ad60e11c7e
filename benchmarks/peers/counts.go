package peers

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Stats asks a sidecar for its statistics, as a user does.
func (s *Server) Stats(ctx context.Context) (st cachesidecar.Stats, err error) {
	cmd := exec.CommandContext(ctx, s.binary, "stats", "--json", "--socket", s.Socket)
	out, err := cmd.Output()
	if err != nil {
		return st, fmt.Errorf("%s: %w", strings.Join(cmd.Args[1:3], " "), err)
	}
	if err := json.Unmarshal(out, &st); err != nil {
		return st, fmt.Errorf("stats of the sidecar: %w", err)
	}
	return st, nil
}

// Count returns how many entries a sidecar or memcached has, and how many it has evicted
// for lack of memory.
func (s *Server) Count(ctx context.Context) (entries, evicted int64, err error) {
	if s.Name == record.Sidecar {
		st, err := s.Stats(ctx)
		return st.L2.Entries, st.L2.Evicted, err
	}
	if s.Name != record.Memcached {
		return 0, 0, fmt.Errorf("the entries of %s are not counted", s.Name)
	}
	nc, err := s.Dial()
	if err != nil {
		return 0, 0, err
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := nc.Write([]byte("stats\r\n")); err != nil {
		return 0, 0, err
	}
	stats := map[string]int64{}
	lines := bufio.NewScanner(nc)
	for lines.Scan() && lines.Text() != "END" {
		if f := strings.Fields(lines.Text()); len(f) == 3 && f[0] == "STAT" {
			if n, err := strconv.ParseInt(f[2], 10, 64); err == nil {
				stats[f[1]] = n
			}
		}
	}
	if err := lines.Err(); err != nil {
		return 0, 0, fmt.Errorf("stats of memcached: %w", err)
	}
	return stats["curr_items"], stats["evictions"], nil
}

// Resident returns the resident memory of the server's process, in bytes. It works on
// Linux only.
func (s *Server) Resident() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("resident memory of %s: %w", s.Name, err)
	}
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("resident memory of %s: its process has ended", s.Name)
}

// steady is the change of resident memory, in bytes, that still counts as settled:
// runtimes give back a page now and then.
const steady = 128 << 10

// Settled waits until the resident memory has stopped changing, for ten seconds at most,
// and returns it.
func (s *Server) Settled(ctx context.Context) (int64, error) {
	last, err := s.Resident()
	for still, tries := 0, 0; err == nil && still < 5 && tries < 100; tries++ {
		if !kv.Sleep(ctx, 100*time.Millisecond) {
			return 0, ctx.Err()
		}
		var now int64
		now, err = s.Resident()
		if still++; max(now-last, last-now) > steady {
			still = 0
		}
		last = now
	}
	return last, err
}
