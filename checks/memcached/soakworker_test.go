package memcached

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

// goWorker is a worker of the long job, with gomemcache. testdata/soak.py does the same.
type goWorker struct {
	run      *soakRun
	name     string
	owners   []string
	suffix   string
	client   *memcache.Client
	seqs     map[string]int
	known    map[string]string    // the values that its keys certainly have
	doubtful map[string]time.Time // until when a write whose outcome is unknown may take effect
	counters map[string]int       // which counter of a name is the latest
}

func newGoWorker(s *soakRun, host int, name string) *goWorker {
	w := &goWorker{
		run: s, name: name, owners: s.readable(host), suffix: s.counters(host), client: memcache.New(s.addresses[host]),
		seqs: map[string]int{}, known: map[string]string{}, doubtful: map[string]time.Time{}, counters: map[string]int{},
	}
	w.client.Timeout = 2 * time.Second
	return w
}

// work does usual jobs until the end.
func (w *goWorker) work() {
	defer w.client.Close()
	for time.Now().Before(w.run.until) {
		switch rand.IntN(12) {
		case 0, 1:
			w.write("set")
		case 2:
			w.write("append")
		case 3:
			w.write("prepend")
		case 4:
			w.write("cas")
		case 5:
			w.write("delete")
		case 6:
			w.record(event{Op: "touch", Key: w.key(w.name)}, func(e *event) error { return w.client.Touch(e.Key, 600) })
		case 7, 8:
			w.read()
		case 9:
			w.readMany()
		case 10:
			w.count("shared", w.increment)
		case 11:
			w.count("cas", w.swap)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (*goWorker) key(owner string) string { return fmt.Sprintf("%s:k%d", owner, rand.IntN(soakKeys)) }

// record makes a call and records what came of it.
func (w *goWorker) record(e event, call func(*event) error) event {
	e.Worker, e.Start = w.name, now()
	err := call(&e)
	e.End = now()
	switch {
	case err == nil:
		e.Out = "ok"
	case errors.Is(err, memcache.ErrCacheMiss):
		e.Out = "miss"
	case errors.Is(err, memcache.ErrNotStored), errors.Is(err, memcache.ErrCASConflict):
		e.Out = "failed"
	default:
		e.Out, e.Error = "unknown", err.Error()
		time.Sleep(100 * time.Millisecond)
	}
	w.run.events <- e
	return e
}

// write writes one of the worker's own keys.
func (w *goWorker) write(kind string) {
	key := w.key(w.name)
	w.seqs[key]++
	before, certain := w.known[key]
	delete(w.known, key)
	if (kind == "append" || kind == "prepend") && !certain {
		kind = "set"
	}
	e := event{Op: "write", Key: key, Seq: w.seqs[key]}
	item := &memcache.Item{Key: key}
	switch part := strconv.Itoa(e.Seq); kind {
	case "append":
		e.Value, item.Value = before+"+"+part, []byte("+"+part)
	case "prepend":
		e.Value, item.Value = part+"+"+before, []byte(part+"+")
	case "set", "cas":
		e.Value = fmt.Sprintf("%s %s %s", key, part, strings.Repeat("x", rand.IntN(200)))
		item.Value = []byte(e.Value)
	}
	e = w.record(e, func(*event) error {
		switch kind {
		case "append":
			return w.client.Append(item)
		case "prepend":
			return w.client.Prepend(item)
		case "cas":
			got, err := w.client.Get(key)
			if err != nil {
				return err
			}
			got.Value = item.Value
			return w.client.CompareAndSwap(got)
		case "delete":
			if err := w.client.Delete(key); !errors.Is(err, memcache.ErrCacheMiss) {
				return err
			}
			return nil // gone, whether it was there or not
		}
		return w.client.Set(item)
	})
	if e.Out == "unknown" {
		w.doubtful[key] = time.Now().Add(5 * time.Second)
	}
	if e.Out == "ok" && kind != "delete" && time.Now().After(w.doubtful[key]) {
		w.known[key] = e.Value
	}
}

// read reads a key of any worker.
func (w *goWorker) read() {
	key := w.key(w.owners[rand.IntN(len(w.owners))])
	w.record(event{Op: "read", Key: key}, func(e *event) error {
		item, err := w.client.Get(key)
		if err == nil {
			e.Value = string(item.Value)
		}
		return err
	})
}

// readMany reads keys of any workers at once.
func (w *goWorker) readMany() {
	keys := map[string]bool{}
	var list []string
	for range 10 {
		if key := w.key(w.owners[rand.IntN(len(w.owners))]); !keys[key] {
			keys[key] = true
			list = append(list, key)
		}
	}
	e := event{Worker: w.name, Op: "read", Start: now()}
	got, err := w.client.GetMulti(list)
	e.End = now()
	for _, key := range list {
		e.Key, e.Out, e.Value = key, "miss", ""
		if err != nil {
			e.Out, e.Error = "unknown", err.Error()
		} else if item := got[key]; item != nil {
			e.Out, e.Value = "ok", string(item.Value)
		}
		w.run.events <- e
	}
}

// count counts up a counter of all workers. If it is lost, the next begins.
func (w *goWorker) count(kind string, call func(*event) error) {
	name := func() string { return fmt.Sprintf("%s-%d%s", kind, w.counters[kind], w.suffix) }
	if e := w.record(event{Op: "count", Key: name()}, call); e.Out == "miss" {
		w.counters[kind]++
		w.record(event{Op: "begin", Key: name()}, func(e *event) error {
			return w.client.Add(&memcache.Item{Key: e.Key, Value: []byte("0")})
		})
	}
}

func (w *goWorker) increment(e *event) error {
	n, err := w.client.Increment(e.Key, 1)
	e.Seq = int(n)
	return err
}

func (w *goWorker) swap(e *event) error {
	item, err := w.client.Get(e.Key)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(item.Value)))
	if err != nil {
		return err
	}
	e.Seq = n + 1
	item.Value = []byte(strconv.Itoa(e.Seq))
	return w.client.CompareAndSwap(item)
}
