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
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Origin is where the missing values of a namespace are loaded from.
type Origin struct {
	Name     string // the kind, for logs and stats
	Keys     *loader.Keys
	Guard    *loader.Guard
	source   loader.Source // without the limits; its errors show no secret
	existing loader.Lister // all keys of the origin; nil: no key filter
	warm     loader.Lister // keys to be loaded at the start; nil: none
	writer   loader.Writer // nil: no write-through
	// Check asks the server whether the settings fit it. nil: there is nothing to ask.
	Check func(context.Context) error
	Close func() error

	loads, writes, lists *Health // writes and lists: nil without write-through, without a key filter

	hide  Secrets
	files [sha256.Size]byte // the digest of the files that the settings name
	users atomic.Int64      // calls under way, and one while the origin is configured; at zero it is closed
	gone  func()            // called instead of Close by the last of them; nil: Close is called
}

// Load loads the value of a key, within the limits.
func (o *Origin) Load(ctx context.Context, key []byte) (loader.Value, error) {
	v, err := o.Guard.Load(ctx, key)
	o.loads.sees(o.Guard)
	return v, err
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

// leave ends a call. The last one closes the origin.
func (o *Origin) leave() {
	if o.users.Add(-1) > 0 {
		return
	}
	if o.gone != nil {
		o.gone()
		return
	}
	_ = o.Close() // nothing is lost
}

// lister is a list of keys that keeps its origin open.
type lister struct {
	loader.Lister
	origin *Origin
}

func (l lister) Keys(ctx context.Context, each func(key []byte) error) error {
	if !l.origin.enter() {
		return errors.New("the origin has been taken out of the configuration")
	}
	defer l.origin.leave()
	return l.Lister.Keys(ctx, each)
}

// OpenOrigin opens the origin of a namespace, or returns nil if it has none. It reads the
// files that the settings name, and asks no server.
func OpenOrigin(
	namespace, node string, ns Settings, maxValue int, memory loader.Memory, log *slog.Logger,
) (*Origin, error) {
	o, err := ns.open(namespace, node, maxValue, memory, log)
	var wrong settings.Problems
	wrong.Within("namespace "+namespace, err)
	return o, wrong.Err()
}

func (n *Settings) open(
	namespace, node string, maxValue int, memory loader.Memory, log *slog.Logger,
) (*Origin, error) {
	if n.Origin == nil {
		return nil, nil
	}
	var wrong settings.Problems
	keys, err := loader.NewKeys(n.KeyPattern, n.MaxKey)
	wrong.Add(err)
	name, files := n.Origin.Kind(), digestOfFiles(n.Origin) // before they are read
	opened, err := n.Origin.Open(loader.OriginOptions{
		Timeout: n.Guard.Timeout, MaxValue: maxValue, WriteThrough: n.WriteThrough, Memory: memory,
	})
	wrong.Within("origin."+name, err)
	if err := wrong.Err(); err != nil {
		if opened != nil && opened.Close != nil {
			_ = opened.Close() // nothing is lost
		}
		return nil, err
	}
	o := &Origin{Name: name, Keys: keys, Close: opened.Close, hide: opened.Secrets, files: files}
	o.users.Store(1)
	if o.Close == nil {
		o.Close = func() error { return nil }
	}
	if err := n.uses(opened, o, reports{namespace, name, node, log, opened.Secrets}); err != nil {
		_ = o.Close() // nothing is lost
		return nil, err
	}
	return o, nil
}

// uses makes the parts that ask an opened origin.
func (n *Settings) uses(opened *loader.Origin, o *Origin, r reports) (err error) {
	for _, c := range opened.Checks {
		o.checks(r.hide, c)
	}
	o.source = r.hide.Source(opened.Source)
	o.loads = r.health(loadWords)
	if o.Guard, err = loader.NewGuard(r.source(opened.Source, o.loads), n.Guard); err != nil {
		return err
	}
	list := func(l loader.List) (loader.Lister, error) {
		if l.Lister != nil {
			_, err := l.Only("")
			return lister{l.Lister, o}, err
		}
		if opened.List == nil {
			return nil, errors.New("this kind of origin cannot list its keys: leave it out")
		}
		keys, err := opened.List(l)
		if err != nil {
			return nil, err
		}
		o.checks(r.hide, keys)
		return lister{hidingLister{keys, r.hide}, o}, nil
	}
	var wrong settings.Problems
	if n.KeyFilter != nil {
		o.existing, err = list(n.KeyFilter.List)
		wrong.Within("existing_keys", err)
		o.lists = r.health(filterWords)
	}
	if n.Warm != nil {
		o.warm, err = list(n.Warm.List)
		wrong.Within("warm_on_start", err)
	}
	if n.WriteThrough && opened.Writer == nil {
		wrong.Addf("write_through: this kind of origin takes no writes: leave it out")
	}
	if opened.Writer != nil {
		o.writes = r.health(writeWords)
		o.writer = reportingWriter{opened.Writer, r, o.writes}
	}
	return wrong.Err()
}

// checks makes o.Check ask a part of the origin too, if the part can be asked.
func (o *Origin) checks(hide Secrets, part any) {
	c, ok := part.(loader.Checker)
	if !ok {
		return
	}
	before := o.Check
	o.Check = func(ctx context.Context) error {
		if before != nil {
			if err := before(ctx); err != nil {
				return err
			}
		}
		return hide.hide(c.Check(ctx))
	}
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
		if o == nil || o.Check == nil {
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
