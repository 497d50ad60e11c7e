package httporigin

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// chatter is a server of HTTP/2 that answers each request, and then sends PINGs.
type chatter struct {
	pings       int  // after each answer; below zero: until the connection ends
	silent      bool // there is no answer
	made, ended atomic.Int64
}

// serve serves one connection.
func (ch *chatter) serve(c net.Conn) {
	ch.made.Add(1)
	defer ch.ended.Add(1)
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	f := http2.NewFramer(c, c)
	_ = f.WriteSettings()
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = f.WriteSettingsAck()
			}
		case *http2.HeadersFrame:
			if !ch.silent {
				_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: frame.StreamID, BlockFragment: []byte{0x88}, EndHeaders: true})
				_ = f.WriteData(frame.StreamID, true, []byte("value"))
			}
			if ch.pings < 0 {
				go func() { _, _ = io.Copy(io.Discard, c) }() // ends with the connection
			}
			for i := 0; i != ch.pings; i++ {
				if f.WritePing(false, [8]byte{}) != nil {
					return
				}
			}
		}
	}
}

// TestIdle checks that a connection ends if much comes on it beside answers, and not if little does, and that the
// next one is made after a pause.
func TestIdle(t *testing.T) {
	t.Parallel()
	certified := httptest.NewTLSServer(nil) // for its certificate
	defer certified.Close()
	for _, tc := range []struct {
		name        string
		pings       int
		silent      bool
		made, ended int64 // connections of 3 loads
	}{{"few", 20, false, 1, 0}, {"without an end", -1, false, 3, 3}, {"instead of an answer", -1, true, 3, 3}} {
		t.Run(tc.name, func(t *testing.T) {
			ch := &chatter{pings: tc.pings, silent: tc.silent}
			l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
				Certificates: certified.TLS.Certificates, NextProtos: []string{http2.NextProtoTLS},
			})
			testenv.Must(t, err)
			defer l.Close()
			go func() { // ends with the listener
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go ch.serve(c) // ends with the connection
				}
			}()
			s := source(t, Config{URL: "https://" + l.Addr().String() + "/{key}"})
			client, _ := s.client.get()
			roots := x509.NewCertPool()
			roots.AddCert(certified.Certificate())
			client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: roots}
			for i := range int64(3) {
				if v, err := s.Load(t.Context(), []byte("k")); (err != nil) != tc.silent || !tc.silent && string(v.Bytes) != "value" {
					t.Fatalf("%q, %v", v.Bytes, err)
				}
				if tc.ended > 0 {
					testenv.Eventually(t, "the connection to end", func() bool { return ch.ended.Load() == i+1 })
					if _, err := s.Load(t.Context(), []byte("k")); !errors.Is(err, errTooMuch) {
						t.Errorf("within the pause: %v", err)
					}
					before := s.client.flood.last.Load().Add(-floodPause)
					s.client.flood.last.Store(&before)
				}
			}
			if made, ended := ch.made.Load(), ch.ended.Load(); made != tc.made || ended != tc.ended {
				t.Errorf("%d connections, %d ended; want %d, %d", made, ended, tc.made, tc.ended)
			}
		})
	}
}

// TestBusy checks how much may come on a connection, with requests and without.
func TestBusy(t *testing.T) {
	here, there := net.Pipe()
	go func() { // ends with the pipe
		for b := make([]byte, 1000); ; {
			if _, err := there.Write(b); err != nil {
				return
			}
		}
	}()
	c := &countedConn{Conn: here, flood: &flood{}, left: maxGreeting}
	defer c.Close()
	read := func(n, want int) {
		t.Helper()
		got, err := 0, error(nil)
		for b := make([]byte, 1000); err == nil && got < n; {
			n, readErr := c.Read(b)
			got, err = got+n, readErr
		}
		if got != want || (err == nil) != (n == want) {
			t.Errorf("%d bytes of %d, %v, want %d", got, n, err, want)
		}
	}
	first, second := &asking{}, &asking{}
	read(524_000, 524_000)
	first.use(tls.Client(c, &tls.Config{}))
	second.use(c)
	second.use(c) // as after a connection that had ended
	first.use(nil)
	read(5_000_000, 5_000_000) // of 5.2 million
	second.ReadCloser = io.NopCloser(io.LimitReader(here, 2_000_000))
	_, _ = io.Copy(io.Discard, second)
	read(4_000_000, 4_000_000)
	second.use(nil)
	read(30_000, 30_000)
	first.use(c)
	second.use(c)
	read(10_000_000, 10_000_000)
	first.use(nil)
	second.use(nil)
	read(100_000, 65_000)
	first.use(here) // another client's
}
