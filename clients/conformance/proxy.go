package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// proxied is what a proxy in front of the real sidecar does.
type proxied struct {
	Cut   int      `json:"cut"`   // close the first connection after so many bytes of answers
	Bytes bool     `json:"bytes"` // deliver answers byte by byte
	Glue  bool     `json:"glue"`  // deliver many answers at once
	Count *counted `json:"count"`
}

// counted bounds the requests of one kind that may come.
type counted struct {
	Op   string `json:"op"`
	Key  value  `json:"key"`
	Most int    `json:"most"`
}

// proxy passes what a client and the real sidecar send each other.
type proxy struct {
	proxied
	path, to string
	ln       net.Listener
	wg       sync.WaitGroup

	mu    sync.Mutex
	n     int // connections so far
	conns []net.Conn
	came  int // of Count
	over  bool
}

func newProxy(p *proxied, path, to, prefix string) (*proxy, error) {
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	x := &proxy{proxied: *p, path: path, to: to, ln: ln}
	if p.Count != nil {
		c := *p.Count
		c.Key = c.Key.prefixed(prefix)
		x.Count = &c
	}
	x.wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			x.accept(nc)
		}
	})
	return x, nil
}

func (p *proxy) accept(nc net.Conn) {
	up, err := net.Dial("unix", p.to)
	if err != nil {
		_ = nc.Close()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	first := p.n == 0
	p.n++
	p.conns = append(p.conns, nc, up)
	if p.over {
		_, _ = nc.Close(), up.Close()
		return
	}
	p.wg.Go(func() { p.ask(up, nc) })
	p.wg.Go(func() { p.answer(nc, up, first) })
}

// ask passes requests.
func (p *proxy) ask(up, nc net.Conn) {
	defer up.Close()
	var rest []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := nc.Read(buf)
		if n > 0 {
			rest = p.count(append(rest, buf[:n]...))
			if _, err := up.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// count counts the whole requests in b and returns the rest.
func (p *proxy) count(b []byte) []byte {
	for len(b) >= wire.LengthSize && len(b) >= wire.LengthSize+wire.FrameLength(b) {
		var r wire.Request
		end := wire.LengthSize + wire.FrameLength(b)
		err := wire.DecodeRequest(b[wire.LengthSize:end], &r)
		p.mu.Lock()
		if p.Count != nil && err == nil && r.Op.String() == p.Count.Op && bytes.Equal(r.Key, p.Count.Key.bytes()) {
			p.came++
		}
		p.mu.Unlock()
		b = b[end:]
	}
	return b
}

// gathering is for how long Glue gathers answers.
const gathering = 5 * time.Millisecond

// answer passes answers.
func (p *proxy) answer(nc, up net.Conn, first bool) {
	defer nc.Close()
	defer up.Close()
	buf := make([]byte, 64<<10)
	for sent := 0; ; {
		n, err := up.Read(buf)
		if p.Glue && err == nil && n < len(buf) {
			time.Sleep(gathering)
			_ = up.SetReadDeadline(time.Now().Add(gathering))
			more, _ := up.Read(buf[n:])
			_ = up.SetReadDeadline(time.Time{})
			n += more
		}
		b := buf[:n]
		cut := first && p.Cut > 0 && sent+len(b) >= p.Cut
		if cut {
			b = b[:p.Cut-sent]
		}
		sent += len(b)
		step := len(b)
		if p.Bytes {
			step = 1
		}
		for ; len(b) > 0; b = b[step:] {
			if _, err := nc.Write(b[:step]); err != nil {
				return
			}
		}
		if err != nil || cut {
			return
		}
	}
}

// finish ends the proxy and returns what was wrong.
func (p *proxy) finish() []string {
	p.mu.Lock()
	p.over = true
	_ = p.ln.Close()
	for _, nc := range p.conns {
		_ = nc.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
	_ = os.Remove(p.path)
	switch {
	case p.n == 0:
		return []string{notPlayed}
	case p.Cut > 0 && p.n == 1:
		return []string{"the client has not connected again after its connection was cut"}
	case p.Count != nil && p.came > p.Count.Most:
		return []string{fmt.Sprintf("%d times %s of one key, want at most %d", p.came, p.Count.Op, p.Count.Most)}
	}
	return nil
}
