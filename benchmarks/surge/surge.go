package surge

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar/internal/load"
)

// Config is the shape of a load.
type Config struct {
	Socket    string
	Namespace string // empty: the sidecar's
	Requests  Requests
	Rate      float64       // requests a second, with exponential gaps
	WarmUp    time.Duration // before the measurement, at the same rate
	Duration  time.Duration // of the measurement
	Timeout   time.Duration // of a request
	// Conns is how many connections stay open and take turns. Zero: each request opens
	// one, says HELLO, and closes it after its answer or its timeout.
	Conns int
	// Window bounds the requests of one connection that are not answered. Zero: as many
	// as the kernel's buffer takes.
	Window int
	Seed   uint64
}

// Result counts the requests that were due, and the answers that came, while the load was
// measured. In an overload the two differ by what is still under way.
type Result struct {
	Elapsed time.Duration
	Due     int64
	Held    int64 // back
	Served  int64
	Busy    int64
	Late    int64
	Failed  int64
	// In nanoseconds: of served and of refused requests, and how late requests were sent.
	Serve, Refuse, Lag *hdrhistogram.Histogram
	Failure            string // the first one
}

// PerSecond returns the goodput.
func (r *Result) PerSecond() float64 { return float64(r.Served) / r.Elapsed.Seconds() }

// slots is how many requests may be under way. Ids return after so many requests.
const slots = 1 << 20

// surge is one run.
type surge struct {
	cfg   Config
	epoch time.Time
	poll  int // the epoll descriptor
	byFD  map[int32]*conn
	conns []*conn // that stay open
	once  []*conn // for one request each, the oldest first
	dirty []*conn // with bytes to write
	due   []int64 // by id
	gaps  []int64 // ns
	next  uint64  // request
	when  int64   // the next request is due, in ns since epoch
	from  int64   // measured from here
	until int64   // and to here
	buf   []byte  // for reads
	r     *Result
}

// Run puts a load on the socket and measures it.
func Run(cfg Config) (*Result, error) {
	s := &surge{
		cfg: cfg, epoch: time.Now(), byFD: map[int32]*conn{}, due: make([]int64, slots), buf: make([]byte, 256<<10),
		r: &Result{Elapsed: cfg.Duration, Serve: load.NewHistogram(), Refuse: load.NewHistogram(), Lag: load.NewHistogram()},
	}
	random := rand.New(rand.NewPCG(cfg.Seed, 1))
	for range 1 << 14 {
		s.gaps = append(s.gaps, int64(random.ExpFloat64()*float64(time.Second)/cfg.Rate))
	}
	var err error
	if s.poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	defer s.close()
	for range cfg.Conns {
		c, err := s.dial()
		if err != nil {
			return nil, err
		}
		s.conns = append(s.conns, c)
	}
	for _, c := range s.conns {
		if err := s.greet(c); err != nil {
			return nil, err
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return s.r, s.run()
}

func (s *surge) now() int64 { return int64(time.Since(s.epoch)) }

// run sends what is due and takes what comes, until the time is over.
func (s *surge) run() error {
	begin := s.now()
	s.when = begin
	s.from = begin + int64(s.cfg.WarmUp)
	s.until = s.from + int64(s.cfg.Duration)
	events := make([]unix.EpollEvent, 256)
	for now := begin; now < s.until; now = s.now() {
		if err := s.send(now); err != nil {
			return err
		}
		s.write()
		s.expire(now)
		if wait := min(s.when, s.until) - s.now(); wait > 0 {
			s.sleep(time.Duration(wait))
		}
		n, err := unix.EpollWait(s.poll, events, 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("epoll: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			if c := s.byFD[e.Fd]; c != nil {
				if err := s.read(c); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// sleep waits until an answer comes, for d at most; for less if bytes wait to be written.
func (s *surge) sleep(d time.Duration) {
	const again = 50 * time.Microsecond
	if len(s.dirty) > 0 {
		d = min(d, again)
	}
	t := unix.NsecToTimespec(int64(d))
	_, _ = unix.Ppoll([]unix.PollFd{{Fd: int32(s.poll), Events: unix.POLLIN}}, &t, nil)
}

// most is how many requests are given to connections before answers are read.
const most = 4096

// send gives the requests that are due to connections.
func (s *surge) send(now int64) error {
	for range most {
		if s.when > now {
			return nil
		}
		due := s.when
		n := s.next
		s.next++
		s.when += s.gaps[n%uint64(len(s.gaps))]
		s.count(&s.r.Due, due)
		slot := uint32(n % slots)
		s.due[slot] = due
		if s.cfg.Conns == 0 {
			if err := s.open(slot, n); err != nil {
				return err
			}
			continue
		}
		c := s.conns[n%uint64(len(s.conns))]
		if s.cfg.Window > 0 && c.open >= s.cfg.Window {
			s.count(&s.r.Held, due)
			continue
		}
		s.add(c, slot, n)
	}
	return nil
}

// add puts a request into a connection's buffer.
func (s *surge) add(c *conn, slot uint32, n uint64) {
	if !c.dirty {
		c.dirty = true
		s.dirty = append(s.dirty, c)
	}
	c.out = s.cfg.Requests.Append(c.out, firstID+uint64(slot), n)
	c.ends = append(c.ends, end{len(c.out), slot})
	c.open++
}

// expire closes the connections whose only request was not answered in time.
func (s *surge) expire(now int64) {
	for len(s.once) > 0 {
		c := s.once[0]
		if !c.closed && now-s.due[c.slot] < int64(s.cfg.Timeout) {
			return
		}
		if !c.closed {
			s.count(&s.r.Late, now)
			s.drop(c)
		}
		s.once = s.once[1:]
	}
}

// count adds one to n if the moment is measured.
func (s *surge) count(n *int64, at int64) {
	if at >= s.from && at < s.until {
		*n++
	}
}

// note adds the time since a request was due, if the moment is measured.
func (s *surge) note(h *hdrhistogram.Histogram, n *int64, slot uint32, at int64) {
	if at >= s.from && at < s.until {
		*n++
		_ = h.RecordValue(max(0, at-s.due[slot])) // no answer takes a minute
	}
}

// close closes everything.
func (s *surge) close() {
	for _, c := range s.byFD {
		_ = unix.Close(c.fd)
	}
	_ = unix.Close(s.poll)
}
