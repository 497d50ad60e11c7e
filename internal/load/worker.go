package load

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// worker is one connection.
type worker struct {
	protocol Protocol
	pipeline int
	nc       net.Conn
	batches  [][]byte // all in one block of memory
	next     int      // the index of the batch to send
	buf      []byte

	requests, hits int64
	latency        *hdrhistogram.Histogram
}

func newWorker(cfg Config, conn int) (*worker, error) {
	nc, err := cfg.Dial()
	if err != nil {
		return nil, err
	}
	if err := cfg.Protocol.Greet(nc); err != nil {
		_ = nc.Close()
		return nil, err
	}
	w := &worker{
		protocol: cfg.Protocol, pipeline: cfg.Pipeline, nc: nc, buf: make([]byte, 256<<10), latency: NewHistogram(),
	}
	var all []byte
	ends := make([]int, cfg.Batches)
	for b := range ends {
		for i := range cfg.Pipeline {
			all = cfg.Protocol.Append(all, i, cfg.Key(conn, b*cfg.Pipeline+i))
		}
		ends[b] = len(all)
	}
	w.batches = make([][]byte, cfg.Batches)
	begin := 0
	for b, end := range ends {
		w.batches[b] = all[begin:end]
		begin = end
	}
	return w, nil
}

// send sends the batches in turn until a time, or each once if the time is zero. It counts anew, those that were
// sent from begin on.
func (w *worker) send(begin, until time.Time) error {
	w.requests, w.hits = 0, 0
	w.latency.Reset()
	for sent := 0; ; sent++ {
		start := time.Now()
		if until.IsZero() && sent == len(w.batches) || !until.IsZero() && !start.Before(until) {
			return nil
		}
		hits, err := Exchange(w.nc, w.protocol, w.batches[w.next], w.pipeline, &w.buf)
		if err != nil {
			return err
		}
		w.next = (w.next + 1) % len(w.batches)
		if !start.Before(begin) {
			w.requests += int64(w.pipeline)
			w.hits += int64(hits)
			_ = w.latency.RecordValue(int64(time.Since(start))) // fails only above a minute
		}
	}
}

// Exchange writes a batch of want requests, and reads their replies into buf, which grows if it must.
func Exchange(rw io.ReadWriter, p Protocol, batch []byte, want int, buf *[]byte) (hits int, err error) {
	if _, err := rw.Write(batch); err != nil {
		return 0, err
	}
	have := 0
	for want > 0 {
		n, err := rw.Read((*buf)[have:])
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("load: the server closed the connection with %d replies to come: %w",
					want, io.ErrUnexpectedEOF)
			}
			return hits, err
		}
		have += n
		replies, hit, size, err := p.Count((*buf)[:have], want)
		if err != nil {
			return hits, err
		}
		want -= replies
		hits += hit
		have = copy(*buf, (*buf)[size:have])
		if have == len(*buf) {
			*buf = append(*buf, make([]byte, have)...)
		}
	}
	if have > 0 {
		return hits, fmt.Errorf("load: %d bytes follow the last reply", have)
	}
	return hits, nil
}
