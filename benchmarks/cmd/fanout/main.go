// Command fanout is the minimum that several Go processes must do to drop each other's
// copies. The process that is written to notifies all others at once, with one write to
// each for all the requests of one read. It has no log, no lease and no bound. Any longer
// delay of the sidecars is the price of their promise.
//
//	fanout SOCKET ADDRESS HOME [OTHER…]
//
// On SOCKET it speaks the sidecar's protocol: HELLO, GET, and SET of its own keys. Other
// processes connect to ADDRESS, host:port. It asks HOME for every key that it does not
// have, and keeps the answer as a copy until it is notified. It notifies every OTHER of
// writes.
//
// It has one goroutine per connection, which ends with the connection.
package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "fanout: give the path of the socket, host:port to listen on, and those of who is asked and of others")
		os.Exit(2)
	}
	h := &host{home: os.Args[3], own: map[string][]byte{}, copies: map[string][]byte{}, asked: map[string]bool{}}
	for _, address := range os.Args[4:] {
		h.others = append(h.others, &other{address: address})
	}
	fmt.Fprintln(os.Stderr, "fanout:", h.run(os.Args[1], os.Args[2]))
	os.Exit(1)
}

// host is one process.
type host struct {
	home   string
	others []*other

	mu     sync.Mutex
	own    map[string][]byte
	copies map[string][]byte
	asked  map[string]bool // keys requested from home and not overwritten since
}

// other is a process that is notified of writes, or asked.
type other struct {
	address string
	mu      sync.Mutex
	nc      net.Conn
}

func (h *host) run(socket, address string) error {
	tcp, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	unix, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	for _, l := range []struct {
		net.Listener
		serve func(net.Conn) error
	}{{tcp, h.peer}, {unix, h.app}} {
		go func() { // ends with the process
			for {
				nc, err := l.Accept()
				if err != nil {
					failed <- err
					return
				}
				go func() { // ends when the peer closes
					defer nc.Close()
					if err := l.serve(nc); err != nil && !errors.Is(err, io.EOF) {
						fmt.Fprintln(os.Stderr, "fanout:", err)
					}
				}()
			}
		}()
	}
	return <-failed
}

// app serves a connection on the socket.
func (h *host) app(nc net.Conn) error {
	home := &other{address: h.home} // of this connection alone
	buf, out, told := make([]byte, 64<<10), []byte(nil), []byte(nil)
	for have := 0; ; {
		n, err := nc.Read(buf[have:])
		if err != nil {
			return err
		}
		have += n
		out, told = out[:0], told[:0]
		at := 0
		for have-at >= wire.LengthSize && have-at >= wire.LengthSize+wire.FrameLength(buf[at:]) {
			end := at + wire.LengthSize + wire.FrameLength(buf[at:])
			var q wire.Request
			if err := wire.DecodeRequest(buf[at+wire.LengthSize:end], &q); err != nil {
				return err
			}
			at = end
			r := wire.Reply{ID: q.ID, Version: 1}
			switch q.Op {
			case wire.OpHello:
				r.Body = wire.MarshalBody(wire.Welcome{Version: wire.Version})
			case wire.OpSet:
				h.set(string(q.Key), append([]byte(nil), q.Value...))
				told = appendFrame(told, tell, q.Key)
			case wire.OpGet:
				if r.Value, r.Source, err = h.get(home, string(q.Key)); err != nil {
					return err
				}
			default:
				r = wire.Reply{ID: q.ID, Status: wire.Unsupported, Message: []byte("fanout has GET and SET")}
			}
			out = wire.AppendReply(out, q.Op, &r)
		}
		have = copy(buf, buf[at:have])
		if _, err := nc.Write(out); err != nil {
			return err
		}
		if len(told) > 0 {
			for _, o := range h.others {
				if err := o.write(told); err != nil {
					return err
				}
			}
		}
	}
}

func (h *host) set(key string, value []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.own[key] = value
}

// get returns the value of a key, from here or from home.
func (h *host) get(home *other, key string) (value []byte, from wire.Source, err error) {
	h.mu.Lock()
	value, from = h.own[key], wire.SourceL2
	if value == nil {
		value, from = h.copies[key], wire.SourceL1
	}
	if value == nil {
		h.asked[key] = true
	}
	h.mu.Unlock()
	if value != nil {
		return value, from, nil
	}
	if err := home.write(appendFrame(nil, ask, []byte(key))); err != nil {
		return nil, 0, err
	}
	if _, value, err = readFrame(home.nc); err != nil {
		return nil, 0, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.asked[key] {
		h.copies[key] = value
	}
	return value, wire.SourcePeer, nil
}

// Frames between processes: the length in 4 bytes, the type, and a key or a value.
const (
	tell byte = iota // the key was written
	ask              // for the key's value
	answer
)

func appendFrame(dst []byte, what byte, b []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(1+len(b)))
	return append(append(dst, what), b...)
}

const maxFrame = 1 << 20

func readFrame(r io.Reader) (what byte, b []byte, err error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 1 || n > maxFrame {
		return 0, nil, fmt.Errorf("a frame of %d bytes", n)
	}
	b = make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return 0, nil, err
	}
	return b[0], b[1:], nil
}

// peer serves another process.
func (h *host) peer(nc net.Conn) error {
	in := bufio.NewReaderSize(nc, 64<<10)
	for {
		what, key, err := readFrame(in)
		if err != nil {
			return err
		}
		h.mu.Lock()
		value := h.own[string(key)]
		if what == tell {
			delete(h.copies, string(key))
			delete(h.asked, string(key))
		}
		h.mu.Unlock()
		if what == ask {
			if _, err := nc.Write(appendFrame(nil, answer, value)); err != nil {
				return err
			}
		}
	}
}

// write sends frames. It connects first if there is no connection.
func (o *other) write(b []byte) (err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.nc == nil {
		if o.nc, err = net.DialTimeout("tcp", o.address, time.Second); err != nil {
			return err
		}
	}
	_, err = o.nc.Write(b)
	return err
}
