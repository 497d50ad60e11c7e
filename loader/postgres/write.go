package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachesidecar/cachesidecar/loader"
)

// WriteConfig has the statements that change values. Each statement is a transaction of
// its own, so it must not call a procedure that commits before the end.
type WriteConfig struct {
	// Store is the statement that stores a value. Required by write_through. Bounds: with
	// "$1", the key, and "$2", the value.
	Store string `yaml:"store"`
	// Delete is the statement that deletes a value. Required by write_through. Bounds: with
	// "$1", the key.
	Delete string `yaml:"delete"`
}

// Writer runs the statements. A store by INSERT, UPDATE or MERGE that affects no row is
// an error.
type Writer struct {
	source        *Source
	store, delete query
}

// NewWriter validates everything that does not need the server.
func (s *Source) NewWriter(cfg WriteConfig) (*Writer, error) {
	cfg.Store, cfg.Delete = statement(cfg.Store), statement(cfg.Delete)
	if !strings.Contains(cfg.Store, "$1") || !strings.Contains(cfg.Store, "$2") {
		return nil, errors.New("postgres origin: its statement to store must have $1, the key, and $2, the value")
	}
	if !strings.Contains(cfg.Delete, "$1") {
		return nil, errors.New("postgres origin: its statement to delete must have $1, the key")
	}
	return &Writer{
		source: s,
		store:  query{sql: cfg.Store, valid: validWrite(cfg.Store, 2)},
		delete: query{sql: cfg.Delete, valid: validWrite(cfg.Delete, 1)},
	}, nil
}

// Check asks the server whether the statements are valid, and returns what is wrong with them.
func (w *Writer) Check(ctx context.Context) error { return w.source.check(ctx, &w.store, &w.delete) }

func validWrite(sql string, params int) func(*pgconn.StatementDescription) error {
	return func(d *pgconn.StatementDescription) error {
		if len(d.ParamOIDs) != params {
			return permanent("the statement %q has %d parameters: give %d", sql, len(d.ParamOIDs), params)
		}
		return nil
	}
}

// Store runs the statement to store.
func (w *Writer) Store(ctx context.Context, key []byte, v loader.Value) error {
	tag, err := w.run(ctx, &w.store, key, v.Bytes)
	if err != nil {
		return err
	}
	if (tag.Insert() || tag.Update() || strings.HasPrefix(tag.String(), "MERGE")) && tag.RowsAffected() == 0 {
		// A trigger may have written elsewhere, so the outcome is unknown.
		return errors.New("postgres origin: its statement to store has touched no row: " +
			"write INSERT ... ON CONFLICT ... DO UPDATE")
	}
	return nil
}

// Delete runs the statement to delete.
func (w *Writer) Delete(ctx context.Context, key []byte) error {
	_, err := w.run(ctx, &w.delete, key)
	return err
}

func (w *Writer) run(ctx context.Context, q *query, params ...[]byte) (pgconn.CommandTag, error) {
	ctx, cancel := context.WithTimeout(ctx, w.source.cfg.Timeout)
	defer cancel()
	c, err := w.source.pool.Acquire(ctx)
	if err != nil {
		return pgconn.CommandTag{}, notWritten(failed(err))
	}
	defer c.Release()
	bind := func(d *pgconn.StatementDescription) (input, error) { return bindWrite(d, params) }
	read := func(*pgconn.StatementDescription, *pgconn.ResultReader) error { return nil } // Close skips the rows
	tag, err := q.exec(ctx, c.Conn(), bind, read)
	if err == nil {
		return tag, nil
	}
	var pe *pgconn.PgError
	var not *unsent
	switch {
	case errors.As(err, &not):
		return tag, notWritten(not.error)
	case errors.As(err, &pe) && unfit(pe) && len(params) > 1:
		return tag, notWritten(fmt.Errorf("postgres origin: the key or the value is no value of its parameter's "+
			"type (%s)", pe.Code))
	case pgconn.SafeToRetry(err), rolledBack(err):
		return tag, notWritten(failed(err))
	}
	return tag, failed(err)
}

// bindWrite returns the parameters of a write.
func bindWrite(d *pgconn.StatementDescription, params [][]byte) (in input, err error) {
	for i, p := range params {
		format, fits := paramFormat(d.ParamOIDs[i], p)
		switch {
		case !fits && i == 0:
			return in, fmt.Errorf("%w: %s", loader.ErrBadKey, notText)
		case !fits:
			return in, fmt.Errorf("postgres origin: the value is no text: %s: make its column bytea", notText)
		case p == nil:
			p = []byte{} // nil would be NULL
		}
		in.values, in.formats = append(in.values, p), append(in.formats, format)
	}
	return in, nil
}

func notWritten(err error) error { return fmt.Errorf("%w: %w", loader.ErrNotWritten, err) }

// rolledBack reports whether the server has said that the statement failed, and with it
// the transaction. An error that ends the connection (FATAL) does not count, because it
// can come after the commit.
func rolledBack(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && pe.SeverityUnlocalized == "ERROR" &&
		pe.Code != "40003" && !strings.HasPrefix(pe.Code, "08")
}
