package postgres

import (
	"bytes"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// encode makes the value of a row. The bytes of the row belong to the connection.
func (s *Source) encode(fields []pgconn.FieldDescription, row [][]byte) (loader.Value, error) {
	if s.cfg.Format != Msgpack {
		if row[0] == nil {
			return loader.Value{}, permanent("the column %q is NULL: use COALESCE, or leave such rows out",
				fields[0].Name)
		}
		return loader.Value{Bytes: slices.Clone(row[0]), Flags: encodingOf(fields[0].DataTypeOID)}, nil
	}
	var buf bytes.Buffer
	enc := msgpack.NewEncoder(&buf)
	enc.UseCompactInts(true)
	if err := enc.EncodeMapLen(len(fields)); err != nil {
		return loader.Value{}, err
	}
	for i, f := range fields {
		if err := enc.EncodeString(f.Name); err != nil {
			return loader.Value{}, err
		}
		if err := encodeColumn(enc, f.DataTypeOID, row[i]); err != nil {
			return loader.Value{}, permanent("column %q: %w", f.Name, err)
		}
	}
	return loader.Value{Bytes: buf.Bytes(), Flags: kv.Msgpack}, nil
}

// encodingOf returns the encoding of a column's bytes.
func encodingOf(oid uint32) uint32 {
	switch oid {
	case pgtype.ByteaOID:
		return kv.Bytes
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID:
		return kv.Integer
	}
	return kv.Text
}

// encodeColumn encodes bytea as bytes, booleans, integers and floats as such, and every
// other type as text.
func encodeColumn(enc *msgpack.Encoder, oid uint32, b []byte) error {
	if b == nil {
		return enc.EncodeNil()
	}
	switch oid {
	case pgtype.ByteaOID:
		return enc.EncodeBytes(b)
	case pgtype.BoolOID:
		return enc.EncodeBool(string(b) == "t")
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID:
		n, err := strconv.ParseInt(string(b), 10, 64)
		if err != nil {
			return err
		}
		return enc.EncodeInt(n)
	case pgtype.Float4OID, pgtype.Float8OID:
		f, err := strconv.ParseFloat(string(b), 64) // "Infinity" and "NaN" too
		if err != nil {
			return err
		}
		return enc.EncodeFloat64(f)
	}
	return enc.EncodeString(string(b))
}
