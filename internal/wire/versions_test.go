package wire

import (
	"math"
	"reflect"
	"slices"
	"testing"
)

// TestNewestVersion checks that NewestVersion finds each version in each message between
// sidecars.
func TestNewestVersion(t *testing.T) {
	names := []string{"Clock", "Version", "AsOf", "Event"}
	found := 0
	// each sets the versions of a message one after the other.
	var each func(v reflect.Value, path string, check func(path string))
	each = func(v reflect.Value, path string, check func(string)) {
		switch v.Kind() {
		case reflect.Slice:
			if k := v.Type().Elem().Kind(); k == reflect.Struct {
				v.Set(reflect.MakeSlice(v.Type(), 2, 2))
				each(v.Index(1), path+"[1]", check)
			}
		case reflect.Struct:
			for i := range v.NumField() {
				f, name := v.Field(i), v.Type().Field(i).Name
				if f.Kind() == reflect.Uint64 && slices.Contains(names, name) {
					f.SetUint(math.MaxUint64)
					check(path + "." + name)
					f.SetUint(0)
					// Each item is a Reply itself.
				} else if f.CanSet() && v.Type() != reflect.TypeFor[Reply]() {
					each(f, path+"."+name, check)
				}
			}
		}
	}
	for _, m := range []interface{ NewestVersion() uint64 }{
		&PeerHello{}, &Poll{}, &Acquire{}, &Acquired{}, &Auth{}, &Authorized{}, &Note{}, &Noted{}, &Pulled{}, &Fetched{}, &Followed{}, &Reply{},
	} {
		name := reflect.TypeOf(m).Elem().Name()
		each(reflect.ValueOf(m).Elem(), name, func(path string) {
			found++
			if m.NewestVersion() != math.MaxUint64 {
				t.Errorf("the newest version of a message with %s is %d", path, m.NewestVersion())
			}
		})
		if m.NewestVersion() != 0 {
			t.Errorf("the newest version of an empty %s is %d", name, m.NewestVersion())
		}
	}
	if found != 25 {
		t.Errorf("%d versions in all messages: the test is about 25", found)
	}
	if r := (&Reply{Items: []Reply{{}, {AsOf: 7}}}); r.NewestVersion() != 7 {
		t.Errorf("the newest version of items is %d", r.NewestVersion())
	}
	var e Events
	for _, v := range []uint64{3, 9, 5} {
		e.Add(EventChanged, 1, v, nil)
	}
	for _, m := range []interface{ NewestVersion() uint64 }{&Followed{Events: e}, &Relay{Events: e}} {
		if m.NewestVersion() != 9 {
			t.Errorf("the newest version of events in %T is %d", m, m.NewestVersion())
		}
	}
}
