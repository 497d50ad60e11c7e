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
	Store string `yaml:"store" answers:"yes"`
	// Delete is the statement that deletes a value. Required by write_through. Bounds: with
	// "$1", the key.
	Delete string `yaml:"delete" answers:"yes"`
}

// writes validates of the statements everything that does not need the server.
func (s *Source) writes() error {
	store, remove := statement(s.cfg.Write.Store), statement(s.cfg.Write.Delete)
	if !strings.Contains(store, "$1") || !strings.Contains(store, "$2") {
		return errors.New("postgres origin: its statement to store must have $1, the key, and $2, the value")
	}
	if !strings.Contains(remove, "$1") {
		return errors.New("postgres origin: its statement to delete must have $1, the key")
	}
	s.store = query{sql: store, valid: validWrite(store, 2)}
	s.delete = query{sql: remove, valid: validWrite(remove, 1)}
	return nil
}

func validWrite(sql string, params int) func(*pgconn.StatementDescription) error {
	return func(d *pgconn.StatementDescription) error {
		if len(d.ParamOIDs) != params {
			return permanent("the statement %q has %d parameters: give %d", sql, len(d.ParamOIDs), params)
		}
		return nil
	}
}

// Store runs the statement to store. An INSERT, UPDATE or MERGE that affects no row is an error.
func (s *Source) Store(ctx context.Context, key []byte, v loader.Value) error {
	tag, err := s.write(ctx, &s.store, key, v.Bytes)
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
func (s *Source) Delete(ctx context.Context, key []byte) error {
	_, err := s.write(ctx, &s.delete, key)
	return err
}

func (s *Source) write(ctx context.Context, q *query, params ...[]byte) (pgconn.CommandTag, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	if s.options.OneSpelling { // what is written is read by the query, whose key may have another type
		oid, err := s.keyType(ctx)
		if err == nil {
			err = s.spelt(oid, params[0])
		}
		if err != nil {
			return pgconn.CommandTag{}, notWritten(err)
		}
	}
	c, err := s.pool.Acquire(ctx)
	if err != nil {
		return pgconn.CommandTag{}, notWritten(classified(err))
	}
	defer c.Release()
	bind := func(d *pgconn.StatementDescription) (input, error) { return s.bindWrite(d, params) }
	read := func(*pgconn.StatementDescription, *pgconn.ResultReader) error { return nil } // Close skips the rows
	tag, err := q.exec(ctx, c.Conn(), bind, read)
	if err == nil {
		return tag, nil
	}
	s.elsewhere(err)
	var pe *pgconn.PgError
	var not *unsent
	switch {
	case errors.As(err, &not):
		return tag, notWritten(not.error)
	case errors.As(err, &pe) && unfit(pe) && len(params) > 1:
		return tag, notWritten(fmt.Errorf("postgres origin: the key or the value is no value of its parameter's "+
			"type (%s)", pe.Code))
	case pgconn.SafeToRetry(err), rolledBack(err):
		return tag, notWritten(classified(err))
	}
	return tag, classified(err)
}

// bindWrite returns the parameters of a write.
func (s *Source) bindWrite(d *pgconn.StatementDescription, params [][]byte) (in input, err error) {
	if _, err := s.keyFormat(d.ParamOIDs[0], params[0]); err != nil {
		return in, err
	}
	for i, p := range params {
		format, fits := paramFormat(d.ParamOIDs[i], p)
		switch {
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
