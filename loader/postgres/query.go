package postgres

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// query is a statement that the server never knows by a name: behind a pooler such as PgBouncer,
// each transaction may reach another connection of the server, where other clients have prepared
// theirs. An execution sends the text, in one round trip. What the server says of the parameters
// and columns is kept until it turns out to be outdated, a minute at most. A query is safe for
// concurrent use.
type query struct {
	sql   string
	valid func(*pgconn.StatementDescription) error
	last  atomic.Pointer[described]
}

type described struct {
	*pgconn.StatementDescription
	at time.Time
}

// describedFor is how long a description is kept: not each change of a table gives an error. A
// wider type of the key is such a change.
const describedFor = time.Minute

// describe asks the server for the parameters and columns, and returns what is wrong with them.
func (q *query) describe(ctx context.Context, c *pgx.Conn) (*pgconn.StatementDescription, error) {
	d, err := c.PgConn().Prepare(ctx, "", q.sql, nil)
	if err == nil {
		err = q.valid(d)
	} else {
		err = classified(err)
	}
	if err != nil {
		return nil, err
	}
	q.last.Store(&described{d, time.Now()})
	return d, nil
}

// input are the parameters of an execution.
type input struct {
	values  [][]byte
	formats []int16
}

// exec executes the query. bind returns the parameters for its description. read reads the rows;
// an error of read ends the execution. If the tables have changed since the query was described,
// exec describes it anew and executes it once more; the server has then executed nothing, or has
// rolled it back.
func (q *query) exec(
	ctx context.Context, c *pgx.Conn,
	bind func(*pgconn.StatementDescription) (input, error),
	read func(*pgconn.StatementDescription, *pgconn.ResultReader) error,
) (pgconn.CommandTag, error) {
	if d := q.last.Load(); d != nil && time.Since(d.at) < describedFor {
		tag, err := q.once(ctx, c, d.StatementDescription, bind, read)
		if !errors.As(err, new(*unsent)) && !outdated(err) {
			return tag, err
		}
	}
	d, err := q.describe(ctx, c)
	if err != nil {
		return pgconn.CommandTag{}, &unsent{err}
	}
	return q.once(ctx, c, d, bind, read)
}

func (q *query) once(
	ctx context.Context, c *pgx.Conn, d *pgconn.StatementDescription,
	bind func(*pgconn.StatementDescription) (input, error),
	read func(*pgconn.StatementDescription, *pgconn.ResultReader) error,
) (pgconn.CommandTag, error) {
	in, err := bind(d)
	if err != nil {
		return pgconn.CommandTag{}, &unsent{err}
	}
	rows := c.PgConn().ExecParams(ctx, q.sql, in.values, d.ParamOIDs, in.formats, columnFormats(d.Fields))
	err = read(d, rows)
	tag, closed := rows.Close()
	if closed != nil {
		err = closed
	}
	return tag, err
}

// unsent is the error of a query that was not executed.
type unsent struct{ error }

func (e *unsent) Unwrap() error { return e.error }

// columnFormats returns the formats of a row: bytea in binary, all others in text.
func columnFormats(fields []pgconn.FieldDescription) []int16 {
	formats := make([]int16, len(fields))
	for i, f := range fields {
		if f.DataTypeOID == pgtype.ByteaOID {
			formats[i] = pgx.BinaryFormatCode
		}
	}
	return formats
}

// errOutdated is the error of rows that are not of the described columns.
var errOutdated = errors.New("the columns of the query have changed")

// asDescribed returns errOutdated if rows have other columns than described.
func asDescribed(d *pgconn.StatementDescription, fields []pgconn.FieldDescription) error {
	if !slices.EqualFunc(d.Fields, fields, func(a, b pgconn.FieldDescription) bool {
		return a.DataTypeOID == b.DataTypeOID
	}) {
		return errOutdated
	}
	return nil
}

// outdated reports whether an execution failed because the tables may no longer be as they were
// described: other columns, or other types. An error that ends the connection (FATAL), such as a
// pooler's, does not say so.
func outdated(err error) bool {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.SeverityUnlocalized == "ERROR" && (pe.Code == "08P01" || strings.HasPrefix(pe.Code, "42"))
	}
	return errors.Is(err, errOutdated)
}
