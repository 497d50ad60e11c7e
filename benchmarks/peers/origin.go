package peers

import (
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// Origin is a web server in this process that values are loaded from. It counts its
// calls.
type Origin struct {
	takes   time.Duration
	places  chan struct{} // of calls that it works on; nil: any number
	value   []byte
	address string

	mu     sync.Mutex
	calls  map[string]int64 // by key
	at     []time.Time      // the time of each call
	server *http.Server     // nil while the origin is down
	ended  chan struct{}    // closed when the server has ended
}

// StartOrigin starts an origin whose answers take the given time. It works on so many calls at once, and others wait;
// zero: on any number.
func StartOrigin(places int, takes time.Duration, value []byte) (*Origin, error) {
	address, err := testenv.FindAddress()
	if err != nil {
		return nil, err
	}
	o := &Origin{takes: takes, value: value, address: address, calls: map[string]int64{}}
	if places > 0 {
		o.places = make(chan struct{}, places)
	}
	return o, o.Up()
}

// URL returns the URL, with {key} in the place of the key.
func (o *Origin) URL() string { return "http://" + o.address + "/{key}" }

// Up starts the origin, at its former address if it had one.
func (o *Origin) Up() error {
	l, err := net.Listen("tcp", o.address)
	if err != nil {
		return err
	}
	o.address = l.Addr().String()
	o.server, o.ended = &http.Server{Handler: http.HandlerFunc(o.answer)}, make(chan struct{})
	go func(s *http.Server, ended chan struct{}) { // ends with Down
		defer close(ended)
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			panic(err) // the listener of this process has broken
		}
	}(o.server, o.ended)
	return nil
}

// Down ends all connections. New ones are refused.
func (o *Origin) Down() {
	if o.server != nil {
		_ = o.server.Close()
		<-o.ended
		o.server = nil
	}
}

func (o *Origin) answer(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.calls[r.URL.Path[1:]]++
	o.at = append(o.at, time.Now())
	o.mu.Unlock()
	if o.places != nil {
		o.places <- struct{}{}
		defer func() { <-o.places }()
	}
	time.Sleep(o.takes)
	_, _ = w.Write(o.value) // fails only if the client has gone
}

// Calls returns how often a key was requested.
func (o *Origin) Calls(key string) int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.calls[key]
}

// Since returns the number of calls between two moments, and the number in the busiest
// second between them.
func (o *Origin) Since(from, to time.Time) (all, busiest int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	first := 0
	for i, at := range o.at { // in order, except calls at the same moment
		switch {
		case at.Before(from):
			first = i + 1
			continue
		case at.After(to):
			return all, busiest
		}
		for at.Sub(o.at[first]) >= time.Second {
			first++
		}
		all++
		busiest = max(busiest, int64(i-first+1))
	}
	return all, busiest
}
