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
		protocol: cfg.Protocol, pipeline: cfg.Pipeline, nc: nc, buf: make([]byte, 256<<10), latency: newHistogram(),
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
		hits, err := w.exchange(w.batches[w.next])
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

// exchange writes a batch and reads its replies.
func (w *worker) exchange(batch []byte) (hits int, err error) {
	if _, err := w.nc.Write(batch); err != nil {
		return 0, err
	}
	have := 0
	for want := w.pipeline; want > 0; {
		n, err := w.nc.Read(w.buf[have:])
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("load: the server closed the connection with %d replies to come: %w",
					want, io.ErrUnexpectedEOF)
			}
			return hits, err
		}
		have += n
		replies, hit, size, err := w.protocol.Count(w.buf[:have], want)
		if err != nil {
			return hits, err
		}
		want -= replies
		hits += hit
		have = copy(w.buf, w.buf[size:have])
		if have == len(w.buf) {
			w.buf = append(w.buf, make([]byte, len(w.buf))...)
		}
	}
	if have > 0 {
		return hits, fmt.Errorf("load: %d bytes follow the last reply", have)
	}
	return hits, nil
}
