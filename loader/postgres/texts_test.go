package postgres

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// TestTexts checks, at one server, which texts keys and values have.
func TestTexts(t *testing.T) {
	s := newFeedServer(t)
	for name, test := range map[string]func(*testing.T, *feedServer){
		"encodings": encodings, "spellings": feedSpellings, "one spelling": oneSpelling,
	} {
		t.Run(name, func(t *testing.T) { test(t, &feedServer{s.Postgres, t}) })
	}
}

// encodings checks that keys, values and messages are UTF-8 whatever encoding the database has, and whatever
// the role, the database and the DSN have set, for loads, writes, lists and the feed.
func encodings(t *testing.T, s *feedServer) {
	t.Helper()
	s.Exec(t, "CREATE ROLE latin SUPERUSER LOGIN")
	s.Exec(t, "ALTER ROLE latin SET client_encoding = 'LATIN1'")
	for _, encoding := range []string{"UTF8", "LATIN1", "WIN1252", "SQL_ASCII"} {
		name := "db_" + strings.ToLower(encoding)
		s.Exec(t, "CREATE DATABASE "+name+" ENCODING '"+encoding+"' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
		db, err := pgx.Connect(t.Context(), s.DSN()+" client_encoding=UTF8 dbname="+name)
		testenv.Must(t, err)
		do := func(sql string) {
			t.Helper()
			if _, err := db.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Fatalf("%s: %s: %v", encoding, sql, err)
			}
		}
		do(`CREATE TABLE "größe" ("näme" text PRIMARY KEY, body text)`)
		do(`INSERT INTO "größe" VALUES ('Zoë', 'naïve café')`)
		do(`CREATE PUBLICATION cachesidecar FOR TABLE "größe"`)
		dsn := s.DSN() + " dbname=" + name
		for _, more := range []string{
			"", " user=latin", " client_encoding=LATIN1", " CLIENT_Encoding=LATIN1", " client_encoding=auto",
			" options='-c client_encoding=LATIN1'",
		} {
			encodedOrigin(t, encoding+more, dsn+more)
		}
		feedEncoded(t, s, encoding, FeedConfig{
			DSN: dsn + " user=latin TimeZone=Asia/Kolkata options='-c client_encoding=LATIN1'", Slot: name, Messages: []string{"pages"},
			Tables: map[string]FeedTable{"public.größe": {"people", "{näme}"}},
		}, do)
		db.Close(t.Context())
	}
}

// encodedOrigin checks an origin.
func encodedOrigin(t *testing.T, what, dsn string) {
	t.Helper()
	src, err := New(Config{
		DSN: dsn, Query: `SELECT body FROM "größe" WHERE "näme" = $1`, Connections: 1, Write: WriteConfig{
			Store:  `INSERT INTO "größe" VALUES ($1, $2) ON CONFLICT ("näme") DO UPDATE SET body = $2`,
			Delete: `DELETE FROM "größe" WHERE "näme" = $1`,
		},
	}, loader.OriginOptions{WriteThrough: true})
	testenv.Must(t, err)
	defer src.Close()
	ctx := t.Context()
	if v, err := src.Load(ctx, []byte("Zoë")); err != nil || string(v.Bytes) != "naïve café" {
		t.Errorf("%s: %q, %v", what, v.Bytes, err)
	}
	err = src.Store(ctx, []byte("süß"), loader.Value{Bytes: []byte("Ö")})
	if v, loaded := src.Load(ctx, []byte("süß")); err != nil || loaded != nil || string(v.Bytes) != "Ö" {
		t.Errorf("%s: stored: %q, %v, %v", what, v.Bytes, err, loaded)
	}
	list, err := src.NewLister(loader.List{Query: `SELECT "näme" FROM "größe" ORDER BY 1`, Timeout: feedTime})
	var keys []string
	if err == nil {
		err = list.Keys(ctx, func(key []byte) error { keys = append(keys, string(key)); return nil })
	}
	if err != nil || !slices.Equal(keys, []string{"Zoë", "süß"}) {
		t.Errorf("%s: the list gives %q, %v", what, keys, err)
	}
	if err := src.Delete(ctx, []byte("süß")); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if _, err := src.Load(ctx, []byte("süß")); !errors.Is(err, loader.ErrAbsent) {
		t.Errorf("%s: after the deletion: %v", what, err)
	}
	if strings.HasPrefix(what, "LATIN1") { // no row can have this key, and no value this text
		if _, err := src.Load(ctx, []byte("Žluť")); !errors.Is(err, loader.ErrBadKey) {
			t.Errorf("%s: a key that the database cannot have: %v", what, err)
		}
		if err := src.Store(ctx, []byte("k"), loader.Value{Bytes: []byte("Žluť")}); !errors.Is(err, loader.ErrNotWritten) {
			t.Errorf("%s: a value that the database cannot have: %v", what, err)
		}
	}
}

// feedEncoded checks a feed.
func feedEncoded(t *testing.T, s *feedServer, encoding string, cfg FeedConfig, do func(sql string)) {
	t.Helper()
	feed := feedOf(t, cfg)
	f := s.followFeed(feed, "")
	message := "pages Zoë"
	if encoding != utf8Name {
		message = "pages: a message names a key in the encoding of the database"
	}
	for _, tc := range []struct{ sql, want string }{
		{`UPDATE "größe" SET body = 'neu'`, "people Zoë"},
		{"SELECT pg_logical_emit_message(true, 'cachesidecar', 'delete pages bob')", "pages bob"},
		{"SELECT pg_logical_emit_message(true, 'cachesidecar', 'delete pages Zoë')", message},
	} {
		do(tc.sql)
		if got := text(f.next()); got != tc.want {
			t.Errorf("%s: %s: %q, want %q", encoding, tc.sql, got, tc.want)
		}
	}
	if encoding == "SQL_ASCII" { // its bytes need not be UTF-8
		do(`SET client_encoding = 'SQL_ASCII'`)
		do("INSERT INTO \"gr\xc3\xb6\xc3\x9fe\" VALUES ('k', E'\\xE9')")
		refused(t, "a row that is not UTF-8", <-f.err, "no form in UTF-8")
		f.err <- nil
		src, err := New(Config{DSN: cfg.DSN, Query: `SELECT body FROM "größe" WHERE "näme" = $1`}, loader.OriginOptions{})
		if err == nil {
			_, err = src.Load(context.Background(), []byte("k"))
		}
		if !errors.Is(err, loader.ErrBadKey) {
			t.Errorf("a load of a row that is not UTF-8: %v", err)
		}
		src.Close()
	}
	f.end()
}
