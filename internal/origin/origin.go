// Package origin opens the origin from which a namespace loads its missing values, asks it, and
// closes it after its last call.
//
// Input is the settings of an origin, and the keys that it is asked for. Output is values and
// lists of keys, errors that may be shown to apps, and lines of the log that say when an origin
// fails and when it has recovered.
//
// Run is a goroutine of the caller. The last Release of an origin closes it on a goroutine that
// Host.Closing counts.
//
// The package joins no loads (package flight), bounds none (package loader), and knows no
// kinds of origins (the packages below loader).
package origin

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

	"github.com/cachesidecar/cachesidecar/internal/keyfilter"
	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Origin is where the missing values of a namespace are loaded from.
type Origin struct {
	Name  string // the kind, for logs and stats
	Keys  *loader.Keys
	Guard *loader.Guard

	Existing loader.Lister // all keys of the origin; nil: no key filter
	Warm     loader.Lister // keys to be loaded at the start; nil: none

	namespace string
	opened    *loader.Origin   // without the limits; its errors may show secrets
	checkers  []loader.Checker // empty: there is nothing to ask

	// writes is nil without write-through, lists without a key filter, checks if there is nothing to ask.
	loads, writes, lists, checks *health

	hide    Secrets           // of the settings
	files   [sha256.Size]byte // the digest of the files that the settings name
	users   atomic.Int64      // calls under way, and one while the origin is configured; at zero it is closed
	closing *sync.WaitGroup   // of the host
	end     context.Context   // of Run
	stop    context.CancelFunc
	agreed  chan struct{} // closed by agree

	agreeing sync.Once
}

// Settings is the settings that an origin is opened with.
type Settings struct {
	Origin       loader.OriginConfig // nil: the apps load, and the fields below have no effect but for the keys
	KeyPattern   string              // of keys that are written and loaded
	MaxKey       int
	WriteThrough bool
	OneSpelling  bool // of each row: a feed deletes its keys
	Guard        loader.GuardConfig
	KeyFilter    *keyfilter.Settings
}

// Host is what an origin stands on.
type Host struct {
	Node     string // this host
	Log      *slog.Logger
	MaxValue int             // bytes
	Memory   loader.Memory   // of answers; nil: no bound
	Closing  *sync.WaitGroup // of origins that are closed in the background; nil: none is released
}

// Open opens the origin of a namespace, or returns nil if it has none. It reads the files that
// the settings name, and asks no server. warm has the keys to be loaded at the start; nil: none.
func Open(namespace string, s Settings, warm *loader.List, host Host) (*Origin, error) {
	if s.Origin == nil {
		return nil, nil
	}
	o := &Origin{
		namespace: namespace, Name: s.Origin.Kind(), opened: &loader.Origin{}, agreed: make(chan struct{}),
		closing: host.Closing,
	}
	o.end, o.stop = context.WithCancel(context.Background())
	err := o.open(&s, warm, &host)
	if err != nil {
		_ = o.Close() // nothing is lost
		return nil, settings.Within("namespaces."+namespace, err)
	}
	return o, nil
}

func (o *Origin) open(n *Settings, warm *loader.List, host *Host) (err error) {
	var wrong settings.Problems
	o.Keys, err = loader.NewKeys(n.KeyPattern, n.MaxKey)
	wrong.Add(err)
	o.files = digestOfFiles(n.Origin) // before they are read
	opened, err := n.Origin.Open(loader.OriginOptions{
		Timeout: n.Guard.Timeout, MaxValue: host.MaxValue, WriteThrough: n.WriteThrough, Memory: host.Memory,
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
	newHealth := func(words healthWords) *health {
		return &health{node: host.Node, log: host.Log.With("namespace", o.namespace, "origin", o.Name), words: words}
	}
	o.loads = newHealth(loadWords)
	o.Guard, err = loader.NewGuard(loader.SourceFunc(func(ctx context.Context, key []byte) (loader.Value, error) {
		v, err := opened.Load(ctx, key)
		o.loaded(err)
		return v, o.report(o.loads, err)
	}), n.Guard)
	if err != nil {
		return err
	}
	if n.KeyFilter != nil {
		o.lists = newHealth(filterWords)
		o.Existing, err = o.list(n.KeyFilter.Listed(), o.lists)
		wrong.Add(settings.Within("existing_keys", err))
	}
	if warm != nil {
		o.Warm, err = o.list(*warm, nil)
		wrong.Add(settings.Within("warm_on_start", err))
	}
	if n.WriteThrough {
		o.writes = newHealth(writeWords)
		if opened.Writer == nil {
			wrong.Addf("write_through", ": this kind of origin takes no writes: leave it out")
		}
	}
	if len(o.checkers) > 0 || opened.Probe {
		o.checks = newHealth(checkWords)
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
			FullName(o.namespace, o.Name), o.hide.Hide(err))
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

// Breaker returns the state of the breaker, and notes it for the log.
func (o *Origin) Breaker() string {
	o.loads.sees(o.Guard)
	return o.Guard.Breaker()
}

// Write writes the value of a key to the origin; nil deletes the key.
func (o *Origin) Write(ctx context.Context, key []byte, v *loader.Value) error {
	if v == nil {
		return o.report(o.writes, o.opened.Writer.Delete(ctx, key))
	}
	return o.report(o.writes, o.opened.Writer.Store(ctx, key, *v))
}

// report notes the result of a call, and returns an error that may be shown to apps: it says which
// origin has failed and how. The address of the origin, its user, and its own words go to the log
// only; the secrets do not even go there. Errors about the key, and errors that are no failures, have
// texts of this project only: they are returned as they are.
func (o *Origin) report(of *health, err error) error {
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
	text := FullName(o.namespace, o.Name) + ": "
	if errors.Is(err, context.Canceled) {
		return Hidden{err, text + "was given up"}
	}
	kind, why := Told(err)
	return Hidden{err, text + why + of.failed(err, kind, why)}
}

// Hold keeps the origin open until Release is called. It returns false if the origin is
// closed.
func (o *Origin) Hold() bool {
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

// Release ends a call, or the use by the configuration. The last one closes the origin. Only the end
// of the host waits for that: a pool waits for its connections, and a reload often takes out an
// origin that does not answer.
func (o *Origin) Release() {
	if o.users.Add(-1) == 0 {
		o.closing.Go(func() { _ = o.Close() }) // ends with Close; nothing is lost
	}
}

// lister is a list of keys that keeps its origin open.
type lister struct {
	loader.Lister
	of     *Origin
	health *health // notes each listing, so that errors may be shown to apps; nil: there is none
}

// list opens a list of keys.
func (o *Origin) list(l loader.List, health *health) (loader.Lister, error) {
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
	if !l.of.Hold() {
		return errors.New("the origin has been taken out of the configuration")
	}
	defer l.of.Release()
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
	kind, why := Told(err)
	if ctx.Err() == nil {
		return Hidden{err, why + l.health.failed(err, kind, why)}
	}
	return Hidden{err, why}
}

// KeepsFiles reports whether the files that the settings name are still as they were opened.
func (o *Origin) KeepsFiles(s *Settings) bool { return o.files == digestOfFiles(s.Origin) }

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
