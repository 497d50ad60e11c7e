package sidecar

import (
	"context"
	"reflect"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/quota"
)

// Apply puts another configuration into effect while the sidecar runs, as far as that is
// possible without a restart, and says what has changed. It also reads the files of keys,
// certificates, tokens and origins again.
//
// The whole configuration is checked first, as in New; origins that are new or differ are
// opened, and with StrictOrigins asked whether the settings fit them. After an error nothing has changed.
// Requests that are under way go on: those that began before may still be answered under
// the old settings. Values that are cached stay, also if their origin is another one now.
//
// Log, Version, Profiles, Reload and StrictOrigins stay those of New. Apply may be called concurrently;
// the calls follow one another.
func (s *Sidecar) Apply(ctx context.Context, cfg Config) (changes cachesidecar.Changes, err error) {
	if !s.enter() {
		return changes, cachesidecar.ErrClosed
	}
	defer s.inUse.Done()
	s.applying.Lock()
	defer s.applying.Unlock()
	wanted, next, err := s.next(cfg)
	if err != nil {
		return changes, err
	}
	rules, err := next.rules()
	if err != nil {
		return changes, err
	}
	httpToken, err := next.httpToken()
	if err != nil {
		return changes, err
	}
	plan, err := s.engine.Namespaces.Prepare(ctx, next.namespaces())
	if err != nil {
		return changes, err
	}
	taken, _ := s.keys.Changes()
	if err := s.keys.Reload(); err != nil { // changes nothing if it fails, and is the last that may fail
		plan.Drop()
		return changes, err
	}
	hide := plan.Hide()
	changes.Changed = differences{hide: hide}.between(&s.present, &next)
	changes.Restart = differences{hide: hide, restart: true}.between(&s.cfg, &wanted)
	for _, name := range plan.Reopened() {
		changes.Changed = append(changes.Changed, newContents("namespaces."+name+".origin"))
	}
	if now, _ := s.keys.Changes(); now != taken {
		changes.Changed = append(changes.Changed, newContents("cluster_key_file"))
	}

	if s.engine.Access.Replace(rules) {
		s.engine.Regions.EndAll()
	}
	begun := s.engine.Reload(plan)
	s.use.RLock()
	for _, k := range begun {
		if s.back != nil { // else Run begins them, or has ended
			s.back.run(k.Run)
		}
	}
	s.use.RUnlock()
	s.present = next
	s.engine.Node.Agreement.Set(next.digests())
	s.setLimits()
	if h := s.http.Load(); h != nil {
		h.SetCallers(next.httpCallers(httpToken))
	}
	return changes, nil
}

// newContents returns the change of a setting whose files have other contents.
func newContents(setting string) cachesidecar.Change {
	return cachesidecar.Change{Setting: setting, From: "files", To: "files with new contents"}
}

// next checks a configuration. It returns it with all defaults as it is wanted, and as it
// can be in effect without a restart.
func (s *Sidecar) next(cfg Config) (wanted, next Config, err error) {
	c := &s.cfg
	cfg.NoSocket, cfg.Profiles, cfg.Version, cfg.Log, cfg.Reload = c.NoSocket, c.Profiles, c.Version, c.Log, c.Reload
	cfg.seed, cfg.clock, cfg.network, cfg.events = c.seed, c.clock, c.network, c.events
	ownWeight := cfg.Weight == 0 // that of L2Size, which stays
	if err := cfg.Check(); err != nil {
		return wanted, next, err
	}
	if wanted, err = cfg.withDefaults(); err != nil {
		return wanted, next, err
	}
	next = wanted
	for i, at := 0, reflect.ValueOf(&next).Elem(); i < at.NumField(); i++ {
		if f := at.Type().Field(i); f.IsExported() && f.Tag.Get("reload") != "yes" {
			at.Field(i).Set(reflect.ValueOf(*c).Field(i))
		}
	}
	if ownWeight {
		next.Weight = c.ownWeight()
		wanted.Weight = next.Weight
	}
	return wanted, next, nil
}

// setLimits puts the present limits and weight into effect. s.applying is held.
func (s *Sidecar) setLimits() {
	c := &s.present
	e := s.engine
	e.Deadlines.SetDefault(c.RequestTimeout)
	e.Budget.SetTotal(quota.Namespaces, int64(c.MaxNamespaces-len(c.Namespaces)))
	files := shareFiles(c, fileLimit())
	e.Budget.SetTotal(quota.Connections, int64(files.apps))
	s.server.SetMaxConns(files.apps)
	if s.memcached.server != nil {
		s.memcached.server.SetMaxConns(files.apps)
	}
	s.aloneOK.Store(c.AloneOK)
	e.Node.SetLeaveTime(c.LeaveTime)
	if s.weight.Swap(c.Weight) != c.Weight && !s.cfg.AdaptiveWeight && !e.Node.SingleNode() {
		e.Node.SetWeight(c.Weight)
	}
}

// Reload reads the cluster key file and the certificate files again. The watch of the
// files does the same within 5 s of a change. An error says why the new contents are not
// taken; then nothing has changed. Without such files Reload does nothing.
func (s *Sidecar) Reload() error { return s.keys.Reload() }
