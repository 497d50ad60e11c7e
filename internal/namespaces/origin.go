package namespaces

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

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
	checks    []loader.Checker // empty: there is nothing to ask

	loads, writes, lists *Health // writes and lists: nil without write-through, without a key filter

	hide    Secrets
	files   [sha256.Size]byte // the digest of the files that the settings name
	users   atomic.Int64      // calls under way, and one while the origin is configured; at zero it is closed
	closing *sync.WaitGroup   // of the table
}

// OpenOrigin opens the origin of a namespace, or returns nil if it has none. It reads the
// files that the settings name, and asks no server. memory is of its answers; nil: no bound.
func OpenOrigin(namespace string, ns Settings, cfg *Config, memory loader.Memory) (*Origin, error) {
	if ns.Origin == nil {
		return nil, nil
	}
	o := &Origin{namespace: namespace, Name: ns.Origin.Kind(), opened: &loader.Origin{}}
	err := o.open(&ns, cfg, memory)
	if err != nil {
		_ = o.Close() // nothing is lost
		var wrong settings.Problems
		wrong.Within("namespace "+namespace, err)
		return nil, wrong.Err()
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
	if wrong.Within("origin."+o.Name, err); err == nil {
		o.opened = opened
	}
	if err := wrong.Err(); err != nil {
		return err
	}
	o.hide, o.checks = opened.Secrets, slices.Clone(opened.Checks)
	o.users.Store(1)
	health := func(words healthWords) *Health {
		return &Health{node: cfg.Node, log: cfg.Log.With("namespace", o.namespace, "origin", o.Name), words: words}
	}
	o.loads = health(loadWords)
	o.Guard, err = loader.NewGuard(loader.SourceFunc(func(ctx context.Context, key []byte) (loader.Value, error) {
		v, err := opened.Load(ctx, key)
		return v, o.report(o.loads, err)
	}), n.Guard)
	if err != nil {
		return err
	}
	if n.KeyFilter != nil {
		o.lists = health(filterWords)
		o.existing, err = o.list(n.KeyFilter.List, o.lists)
		wrong.Within("existing_keys", err)
	}
	if n.Warm != nil {
		o.warm, err = o.list(n.Warm.List, nil)
		wrong.Within("warm_on_start", err)
	}
	if n.WriteThrough {
		o.writes = health(writeWords)
		if opened.Writer == nil {
			wrong.Addf("write_through: this kind of origin takes no writes: leave it out")
		}
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
	why := manner(err) + cause(err)
	return Hidden{err, text + why + of.failed(err, why)}
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
		o.checks = append(o.checks, c)
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
	why, line := manner(err)+cause(err), ""
	if ctx.Err() == nil {
		line = l.health.failed(err, why)
	}
	return Hidden{err, why + line}
}

// Check asks the server whether the settings fit it.
func (o *Origin) Check(ctx context.Context) error {
	for _, c := range o.checks {
		if err := c.Check(ctx); err != nil {
			return o.hide.Hide(err)
		}
	}
	return nil
}

// probes are keys for a question to an origin that has nothing to check. The first one that the
// namespace lets pass is asked for.
var probes = []string{"cachesidecar-check", "check", "a", "A", "0", "1", "00000000-0000-0000-0000-000000000000"}

// Ask asks the server once. The server's answer that it has no such key is a success. The
// limits of the namespace do not count.
func (o *Origin) Ask(ctx context.Context) error {
	if len(o.checks) > 0 {
		return o.Check(ctx)
	}
	key := probes[0]
	for _, k := range probes {
		if o.Keys.Check([]byte(k)) == nil {
			key = k
			break
		}
	}
	_, err := o.opened.Load(ctx, []byte(key))
	err = o.hide.Hide(err)
	switch {
	case err == nil, errors.Is(err, loader.ErrAbsent), errors.Is(err, loader.ErrBadKey),
		errors.Is(err, loader.ErrTooLarge):
		return nil
	case errors.Is(err, loader.ErrPermanent):
		return fmt.Errorf("%w (it was asked for the key %q)", err, key)
	}
	return err
}

// checkTime is how long all origins together may take to check their settings.
const checkTime = 5 * time.Second

// CheckOrigins asks the origins whether the settings fit them: a query with the wrong
// columns would fail at every load. An origin that cannot be asked now does not prevent
// the start: what is cached on other hosts is served without it.
func (n *Table) CheckOrigins(ctx context.Context, log *slog.Logger) error {
	origins := map[string]*Origin{}
	for name, ns := range n.All() {
		origins[name] = ns.Origin
	}
	return checkOrigins(ctx, origins, log)
}

// checkOrigins asks the origins of namespaces; nil is none.
func checkOrigins(ctx context.Context, origins map[string]*Origin, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	var group errgroup.Group
	for name, o := range origins {
		if o == nil {
			continue
		}
		group.Go(func() error {
			err := o.Check(ctx)
			if errors.Is(err, loader.ErrPermanent) {
				return fmt.Errorf("namespace %s: %w", name, err)
			}
			if err != nil {
				log.Warn("an origin cannot be asked whether what is configured fits it",
					"namespace", name, "origin", o.Name, "error", err)
			}
			return nil
		})
	}
	return group.Wait()
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
