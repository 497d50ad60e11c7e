package namespaces

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Origin is where the missing values of a namespace are loaded from.
type Origin struct {
	Name  string // the kind, for logs and stats
	Keys  *loader.Keys
	Guard *loader.Guard

	namespace string
	opened    *loader.Origin   // without the limits; its errors may show secrets
	existing  loader.Lister    // all keys of the origin; nil: no key filter
	warm      loader.Lister    // keys to be loaded at the start; nil: none
	checkers  []loader.Checker // empty: there is nothing to ask

	// writes is nil without write-through, lists without a key filter, checks if there is nothing to ask.
	loads, writes, lists, checks *Health

	hide    Secrets
	files   [sha256.Size]byte // the digest of the files that the settings name
	users   atomic.Int64      // calls under way, and one while the origin is configured; at zero it is closed
	closing *sync.WaitGroup   // of the table
	end     context.Context   // of Run
	stop    context.CancelFunc
	agreed  chan struct{} // closed by agree

	agreeing sync.Once
}

// OpenOrigin opens the origin of a namespace, or returns nil if it has none. It reads the
// files that the settings name, and asks no server. memory is of its answers; nil: no bound.
func OpenOrigin(namespace string, ns Settings, cfg *Config, memory loader.Memory) (*Origin, error) {
	if ns.Origin == nil {
		return nil, nil
	}
	o := &Origin{namespace: namespace, Name: ns.Origin.Kind(), opened: &loader.Origin{}, agreed: make(chan struct{})}
	o.end, o.stop = context.WithCancel(context.Background())
	err := o.open(&ns, cfg, memory)
	if err != nil {
		_ = o.Close() // nothing is lost
		return nil, settings.Within("namespaces."+namespace, err)
	}
	return o, nil
}

func (o *Origin) open(n *Settings, cfg *Config, memory loader.Memory) (err error) {
	var wrong settings.Problems
	o.Keys, err = loader.NewKeys(n.KeyPattern, n.MaxKey)
	wrong.Add(err)
	o.files = digestOfFiles(n.Origin) // before they are read
	opened, err := n.Origin.Open(loader.OriginOptions{
		Timeout: n.Guard.Timeout, MaxValue: cfg.MaxValue, WriteThrough: n.WriteThrough, Memory: memory,
		OneSpelling: n.OneSpelling,
	})
	if wrong.Add(settings.Within("origin."+o.Name, err)); err == nil {
		o.opened = opened
	}
	if err := wrong.Err(); err != nil {
		return err
	}
	o.hide, o.checkers = opened.Secrets, slices.Clone(opened.Checks)
	o.users.Store(1)
	health := func(words healthWords) *Health {
		return &Health{node: cfg.Node, log: cfg.Log.With("namespace", o.namespace, "origin", o.Name), words: words}
	}
	o.loads = health(loadWords)
	o.Guard, err = loader.NewGuard(loader.SourceFunc(func(ctx context.Context, key []byte) (loader.Value, error) {
		v, err := opened.Load(ctx, key)
		o.loaded(err)
		return v, o.report(o.loads, err)
	}), n.Guard)
	if err != nil {
		return err
	}
	if n.KeyFilter != nil {
		o.lists = health(filterWords)
		o.existing, err = o.list(n.KeyFilter.List, o.lists)
		wrong.Add(settings.Within("existing_keys", err))
	}
	if n.Warm != nil {
		o.warm, err = o.list(n.Warm.List, nil)
		wrong.Add(settings.Within("warm_on_start", err))
	}
	if n.WriteThrough {
		o.writes = health(writeWords)
		if opened.Writer == nil {
			wrong.Addf("write_through", ": this kind of origin takes no writes: leave it out")
		}
	}
	if len(o.checkers) > 0 || opened.Probe {
		o.checks = health(checkWords)
	} else {
		o.agree()
	}
	return wrong.Err()
}

// KeyForms returns regular expressions: a key that is loaded matches all of them. It may ask the server.
func (o *Origin) KeyForms(ctx context.Context) (forms []string, err error) {
	if p := o.Keys.Pattern(); p != "" {
		forms = append(forms, p)
	}
	if o.opened.Spelling == nil {
		return forms, nil
	}
	spelling, err := o.opened.Spelling(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be asked which keys it takes: %w",
			OriginName(o.namespace, o.Name), o.hide.Hide(err))
	}
	if spelling != "" {
		forms = append(forms, spelling)
	}
	return forms, nil
}

// Close closes the origin, whatever calls are under way.
func (o *Origin) Close() error {
	o.stop()
	if o.opened.Close == nil {
		return nil
	}
	return o.opened.Close()
}

// Load loads the value of a key, within the limits.
func (o *Origin) Load(ctx context.Context, key []byte) (loader.Value, error) {
	v, err := o.Guard.Load(ctx, key)
	o.loads.sees(o.Guard)
	return v, err
}

// write writes the value of a key to the origin; nil deletes the key.
func (o *Origin) write(ctx context.Context, key []byte, v *loader.Value) error {
	if v == nil {
		return o.report(o.writes, o.opened.Writer.Delete(ctx, key))
	}
	return o.report(o.writes, o.opened.Writer.Store(ctx, key, *v))
}

// report notes the result of a call, and returns an error that may be shown to apps: it says which
// origin has failed and how. The address of the origin, its user, and its own words go to the log
// only; the secrets do not even go there. Errors about the key, and errors that are no failures, have
// texts of this project only: they are returned as they are.
func (o *Origin) report(of *Health, err error) error {
	err = o.hide.Hide(err)
	switch {
	case err == nil, errors.Is(err, loader.ErrAbsent):
		of.succeeded()
		return err
	case errors.Is(err, loader.ErrNoMemory): // without the address
		return Hidden{err, loader.ErrNoMemory.Error()}
	case errors.Is(err, loader.ErrBusy), errors.Is(err, loader.ErrBadKey): // the origin was not asked
		return err
	}
	text := OriginName(o.namespace, o.Name) + ": "
	if errors.Is(err, context.Canceled) {
		return Hidden{err, text + "was given up"}
	}
	kind, why := manner(err)
	why += cause(err)
	return Hidden{err, text + why + of.failed(err, kind, why)}
}

// enter keeps the origin open until leave is called. It returns false if the origin is
// closed.
func (o *Origin) enter() bool {
	for {
		n := o.users.Load()
		if n == 0 {
			return false
		}
		if o.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// leave ends a call. The last one closes the origin. Nothing but Table.Close waits for the closing: a
// pool waits for its connections, and a reload often takes out an origin that does not answer.
func (o *Origin) leave() {
	if o.users.Add(-1) == 0 {
		o.closing.Go(func() { _ = o.Close() }) // ends with Close; nothing is lost
	}
}

// lister is a list of keys that keeps its origin open.
type lister struct {
	loader.Lister
	of     *Origin
	health *Health // notes each listing, so that errors may be shown to apps; nil: there is none
}

// list opens a list of keys.
func (o *Origin) list(l loader.List, health *Health) (loader.Lister, error) {
	if l.Lister != nil {
		_, err := l.Only("")
		return &lister{l.Lister, o, health}, err
	}
	if o.opened.List == nil {
		return nil, errors.New("this kind of origin cannot list its keys: leave it out")
	}
	keys, err := o.opened.List(l)
	if err != nil {
		return nil, err
	}
	if c, ok := keys.(loader.Checker); ok {
		o.checkers = append(o.checkers, c)
	}
	return &lister{keys, o, health}, nil
}

func (l *lister) Keys(ctx context.Context, each func(key []byte) error) error {
	if !l.of.enter() {
		return errors.New("the origin has been taken out of the configuration")
	}
	defer l.of.leave()
	began := time.Now()
	err := l.of.hide.Hide(l.Lister.Keys(ctx, each))
	switch {
	case l.health == nil:
		return err
	case err == nil:
		l.health.succeeded()
		l.health.log.Debug("the filter of existing keys has all keys", "took", time.Since(began))
		return nil
	}
	kind, why := manner(err)
	if why += cause(err); ctx.Err() == nil {
		return Hidden{err, why + l.health.failed(err, kind, why)}
	}
	return Hidden{err, why}
}

// maxNamedFile is the most of a file that counts for its digest. The files that settings
// name are shorter.
const maxNamedFile = 1 << 20

// digestOfFiles returns the digest of the files that an origin's settings name: of those
// whose names end in _file or _files. After a rotation the settings are the same, and the
// files are not.
func digestOfFiles(c loader.OriginConfig) (d [sha256.Size]byte) {
	h := sha256.New()
	add := func(path string) {
		b, err := settings.ReadFile(path, maxNamedFile)
		fmt.Fprintln(h, len(path), path, err, len(b))
		h.Write(b)
	}
	v := reflect.Indirect(reflect.ValueOf(c))
	if v.Kind() != reflect.Struct {
		return d
	}
	for field, v := range v.Fields() {
		switch name := field.Tag.Get("yaml"); {
		case strings.HasSuffix(name, "_file") && v.Kind() == reflect.String && v.String() != "":
			add(v.String())
		case strings.HasSuffix(name, "_files"):
			if files, ok := v.Interface().(map[string]string); ok {
				for _, key := range slices.Sorted(maps.Keys(files)) {
					add(files[key])
				}
			}
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}
