package postgres

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

const spellingTables = `
CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE DOMAIN blob AS bytea;
CREATE DOMAIN blob2 AS blob;
CREATE DOMAIN code AS char(5);
CREATE DOMAIN big AS int8 CHECK (value > 0);
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE keys (id int PRIMARY KEY, a_text text, a_varchar varchar(9), a_mood mood, a_big big, a_name name,
	a_char char(5), a_code code, a_uuid uuid, a_nocase text COLLATE nocase, a_numeric numeric, a_scaled numeric(10,2),
	a_whole numeric(10), a_date date, a_time timestamptz, a_blob2 blob2, a_bytea bytea, a_inet inet, a_bool bool,
	a_float float8, a_json jsonb, a_list int[], a_range int4range, a_money money, a_interval interval);
ALTER TABLE keys REPLICA IDENTITY FULL;
CREATE TABLE more (LIKE keys);
ALTER TABLE more REPLICA IDENTITY FULL;
CREATE PUBLICATION cachesidecar FOR TABLE keys, more;`

// feedSpellings checks which keys are refused because an app could ask for a row by another text than the
// feed deletes, and that the proposed key_pattern is taken.
func feedSpellings(t *testing.T, s *feedServer) {
	t.Helper()
	s.Exec(t, "DROP PUBLICATION cachesidecar")
	for sql := range strings.SplitSeq(spellingTables, ";\n") {
		s.Exec(t, sql)
	}
	conn, err := s.feed().connect(t.Context(), false)
	testenv.Must(t, err)
	defer conn.Close(t.Context())
	feedWith := func(keys ...string) *Feed {
		cfg := s.config()
		cfg.Tables = map[string]FeedTable{}
		for i, key := range keys {
			cfg.Tables[[]string{"public.keys", "public.more"}[i]] = FeedTable{"keys", key}
		}
		return feedOf(t, cfg)
	}
	check := func(key string, forms ...string) error {
		f := feedWith(strings.Split(key, " and ")...)
		f.KeyForms(func(context.Context, string) ([]string, error) { return forms, nil })
		_, err = f.check(t.Context(), conn)
		return err
	}
	const never, apart = "which are in no one form", "Give each table of keys a namespace of its own"
	proposed := regexp.MustCompile(`key_pattern: '(.*)'$`)
	for _, tc := range []struct{ key, pattern, want string }{
		{"{a_text}", "", ""}, {"{a_varchar}", "", ""}, {"{a_mood}", "", ""},
		{"u:{a_text}", "", `"`}, {"u:{a_text}", "u:.*", `"u::"`}, {"u:{a_text}", "u:[^:]*", ""}, {"u:{a_text}", "[uv]:[^:]*", `"v:"`},
		{"u:{id}", "[uv]:[1-9][0-9]*", `"v:1"`}, {"user{a_text}", "user[^u]*", ""}, {"user{a_text}", "user.*", `"useru"`},
		{"{a_text}/{a_mood}", "", `"`}, {"{a_text}/{a_mood}", ".+/.*", `"//"`}, {"{a_text}/{a_mood}", "[a-z]+/[a-z]+", ""},
		{"{a_text}/{a_mood}", "[a-z]+/[a-z]+(/[a-z])?", `"a/a/a"`}, {"{a_text}/{a_char}", "", `"`},
		{"{a_text}, {a_mood}", "[a-z]+, [a-z ]+", `"a,  "`},
		{"u:{a_name}", "u:[a-z]+", never},
		{"{id}", "", `lets such a key pass: "00". Give`}, {"{id}", ".*", `"00"`}, {"{id}", `\d+`, `"00"`}, {"{id}", `[1-9][0-9]*(\.0)?`, `"1.0"`}, {"{id}", `[1-9](e1)?`, `"1e1"`},
		{"{id}", "[1-9][0-9]*", ""}, {"{id}", "u:.*", `such as "0", is none`}, {"u:{id}", "u:.*", `"u:"`}, {"u:{id}", "u:[0-9]+", `"u:00"`}, {"{a_big}", ".*", `"00"`},
		{"{a_text}/{id}", "(eu|us)/[0-9]+", `"eu/00"`}, {"{a_text}/{id}", "(eu|us)/[1-9][0-9]*", ""},
		{"{a_uuid}", "[0-9a-f-]{36}", "no feed deletes"}, {"{a_uuid}", "[0-9A-F-]+", "no feed deletes"},
		{"{a_char}", "[A-Z]+", "no feed deletes"}, {"{a_char}", "[A-Z]{5}", ""}, {"{a_code}", "[A-Z]{4}", "no feed deletes"},
		{"{a_scaled}", "[1-9][0-9]*", "no feed deletes"}, {"{a_scaled}", `[1-9][0-9]*\.[0-9]{2}`, ""},
		{"{a_scaled}", `-0\.50|0\.00`, ""}, {"{a_scaled}", `-?0\.[05]0`, `"-0.00"`},
		{"{a_whole}", ".*", "no feed deletes"}, {"{a_date}", `\d{8}|\d{4}-\d\d-\d\d`, "no feed deletes"},
		{"{a_date}", `20\d\d-[01]\d-[0-3]\d`, ""}, {"{a_time}", ".*", "no feed deletes"}, {"{a_inet}", ".*", "no feed deletes"},
		{"{a_inet}", `10\.0\.0\.[1-9]`, ""},
		{"{a_bool}", "true|false", "no feed deletes"}, {"{a_name}", ".+", "no feed deletes"},
		{"{id}", "(.*1.{900})", "too intricate"},
		{"user:{id} and order:{id}", "(user|order):[1-9][0-9]*", ""}, {"user:{id} and order:{id}", "(user|order):[0-9]+", `"user:00"`},
		{"{id} and order:{id}", "(order:)?[1-9][0-9]*", ""}, {"{id} and order:{id}", "order:[1-9][0-9]*", `such as "0", is none`},
		{"{a_text}:{id} and {a_text}/{id}", "[a-z]+[:/][1-9][0-9]*", ""},
		{"{a_text}:{id} and {a_text}/{id}", "[a-z]+[:/][0-9]+", `00"`},
		{"{id} and {a_uuid}", "[0-9]+|[0-9a-f-]{36}", apart}, {"{a_char} and {id}", "[0-9]+|.{5}", apart},
		{"{a_text} and order:{id}", ".*", apart}, {"{id} and {a_big}", "[1-9][0-9]*", ""}, {"{id} and {a_big}", "", `"00"`},
		{"{a_nocase}", "[a-z]+", "not deterministic"}, {"{a_numeric}", "[1-9][0-9]*", never}, {"{a_blob2}", ".*", never},
		{"{a_bytea}", ".*", never}, {"{a_float}", "[1-9]", never}, {"{a_json}", ".*", never}, {"{a_list}", ".*", never},
		{"{a_range}", ".*", never}, {"{a_money}", ".*", never}, {"{a_interval}", ".*", never},
	} {
		var forms []string
		if tc.pattern != "" {
			forms = []string{tc.pattern}
		}
		err := check(tc.key, forms...)
		if tc.want == "" && err != nil || tc.want != "" && (!errors.Is(err, loader.ErrFeed) || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s with key_pattern %q: %v, want %q", tc.key, tc.pattern, err, tc.want)
		}
		if err == nil || tc.want == apart || strings.Contains(err.Error(), never) || strings.Contains(err.Error(), "is none") {
			continue
		}
		m := proposed.FindStringSubmatch(err.Error())
		if m == nil {
			t.Errorf("%s: nothing is proposed: %v", tc.key, err)
		} else if err := check(tc.key, m[1]); err != nil {
			t.Errorf("%s: the proposed key_pattern %q: %v", tc.key, m[1], err)
		}
	}
	feedAsksAgain(t, feedWith("{id}"), conn)
	if err := check("{id}", ".*", written[23].String()); err != nil { // what the origin lets pass counts
		t.Errorf("the origin lets no other key pass: %v", err)
	}
}

// feedAsksAgain checks that a feed goes on for the other namespaces while an origin is away, and asks for the forms
// of keys, within a bound of time, at each look.
func feedAsksAgain(t *testing.T, f *Feed, conn *pgconn.PgConn) {
	t.Helper()
	var forms []string
	away := errors.New("the origin is away")
	f.KeyForms(func(ctx context.Context, _ string) ([]string, error) {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("the question for the forms has no bound of time")
		}
		return forms, away
	})
	looks := func(what string, fits bool) {
		t.Helper()
		if _, err := f.check(t.Context(), conn); (err == nil) != fits || !fits && !errors.Is(err, loader.ErrFeed) {
			t.Errorf("%s: %v, and it fits: %v", what, err, fits)
		}
	}
	looks("the origin is away", true)
	away = nil
	looks("the origin is back, and lets 042 pass", false)
	forms = []string{"[1-9][0-9]*"}
	looks("the origin lets no other key pass", true)
	forms = nil
	looks("the origin lets 042 pass again", false)
}

// oneSpelling checks that an origin under a feed lets the keys alone pass that the log writes, also those
// of writes, and that all texts of the log are let pass.
func oneSpelling(t *testing.T, s *feedServer) {
	t.Helper()
	s.Exec(t, "ALTER DATABASE postgres SET timezone = 'Asia/Kolkata'")
	cfg := Config{DSN: s.DSN(), Connections: 4}
	for _, tc := range []struct {
		kind string
		good []string
		bad  []string
	}{
		{"int4", []string{"0", "42", "-7"}, []string{"042", "+42", " 42", "-0", "42 "}},
		{"int2", []string{"1"}, []string{"01"}},
		{"int8", []string{"9007199254740993"}, []string{"00"}},
		{"uuid", []string{"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}, []string{
			"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}", "a0eebc999c0b4ef8bb6d6bb9bd380a11",
		}},
		{"date", []string{"2026-01-02"}, []string{"20260102", "2026-1-2", "today", "January 2, 2026"}},
		{"timestamptz", []string{"2026-01-02 03:04:05+00", "2026-01-02 03:04:05.5+00"}, []string{
			"2026-01-02T03:04:05Z", "2026-01-02 03:04:05", "2026-01-02 03:04:05.50+00", "2026-01-02 08:34:05+05:30",
		}},
		{"timestamp", []string{"2026-01-02 03:04:05"}, []string{"2026-01-02T03:04:05", "2026-01-01 24:00:00", "2026-01-01 23:59:60"}},
		{"bool", []string{"t", "f"}, []string{"true", "1", "on"}},
		{"macaddr", []string{"08:00:2b:01:02:03"}, []string{"08002b010203", "08:00:2B:01:02:03"}},
		{"text", []string{"042", "Ada", "ada"}, nil},
	} {
		one := cfg
		one.Query = fmt.Sprintf("SELECT 'v' WHERE $1::%s IS NOT NULL", tc.kind)
		one.Write = WriteConfig{Store: one.Query + " AND $2::text <> ''", Delete: one.Query}
		src, err := New(one, loader.OriginOptions{OneSpelling: true, WriteThrough: true})
		testenv.Must(t, err)
		if form, err := src.spelling(t.Context()); err != nil || (form == "") != (tc.kind == "text") {
			t.Errorf("%s: its form is %q, %v", tc.kind, form, err)
		}
		for _, key := range slices.Concat(tc.good, tc.bad) {
			want := slices.Contains(tc.bad, key)
			_, err := src.Load(t.Context(), []byte(key))
			store := src.Store(t.Context(), []byte(key), loader.Value{Bytes: []byte("v")})
			remove := src.Delete(t.Context(), []byte(key))
			for what, err := range map[string]error{"load": err, "store": store, "delete": remove} {
				if errors.Is(err, loader.ErrBadKey) != want || !want && err != nil {
					t.Errorf("%s %q: %s: %v, and it is refused: %v", tc.kind, key, what, err, want)
				}
			}
		}
		list, err := src.NewLister(loader.List{Query: fmt.Sprintf("SELECT x::%s FROM unnest('{%s}'::text[]) x", tc.kind,
			`"`+strings.Join(tc.good, `","`)+`"`), Timeout: feedTime})
		var keys []string
		if err == nil {
			err = list.Keys(t.Context(), func(key []byte) error { keys = append(keys, string(key)); return nil })
		}
		if err != nil || !slices.Equal(keys, tc.good) {
			t.Errorf("%s: the list gives %q, %v, want %q", tc.kind, keys, err, tc.good)
		}
		testenv.Should(t, src.Close())
	}
	other := cfg // the key that is written has another type than the key that is read
	other.Query = "SELECT 'v' WHERE $1::int = 42"
	other.Write = WriteConfig{Store: "SELECT $1::text || $2::text", Delete: "SELECT $1::text"}
	src, err := New(other, loader.OriginOptions{OneSpelling: true, WriteThrough: true})
	testenv.Must(t, err)
	for key, refused := range map[string]bool{"42": false, "042": true} {
		store := src.Store(t.Context(), []byte(key), loader.Value{Bytes: []byte("v")})
		remove := src.Delete(t.Context(), []byte(key))
		for what, err := range map[string]error{"store": store, "delete": remove} {
			if errors.Is(err, loader.ErrBadKey) != refused || errors.Is(err, loader.ErrNotWritten) != refused || !refused && err != nil {
				t.Errorf("%s of %q: %v, and it is refused: %v", what, key, err, refused)
			}
		}
	}
	testenv.Should(t, src.Close())
	free, err := New(Config{DSN: s.DSN(), Query: "SELECT 'v' WHERE $1::int = 42"}, loader.OriginOptions{})
	if err == nil {
		_, err = free.Load(t.Context(), []byte("042"))
	}
	if err != nil {
		t.Errorf("without a feed: %v", err)
	}
	_ = free.Close()
}
