package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachesidecar/cachesidecar/loader"
)

// How a host that is to follow a slot knows that it is the one which was followed: PostgreSQL gives slots no
// identity. Hosts tell each other up to where they have deleted what has changed, and which server told them of
// it. The feed has the server forget only what all hosts have heard of for some time. So a slot that has forgotten
// more is another one, or others have moved it. One that has not brings all that has changed since, whoever
// made it: a slot that is made again begins behind everything that a slot could bring before.

// mark is where a stream is. Hosts tell each other of it as the Checkpoint of the stream.
type mark struct {
	catalog string // a digest
	server  serverID
	at      loader.Position // all before it is deleted; zero: not known
}

// serverID tells a server from others, and from what it was before it was restored.
type serverID struct {
	system   uint64 // its copies have the same
	timeline uint32 // another one since it was promoted, or restored to a moment
}

// server is a server, and where its log ends.
type server struct {
	id  serverID
	end loader.Position
}

func (mk mark) checkpoint() loader.Checkpoint {
	b := binary.BigEndian.AppendUint64([]byte(mk.catalog), mk.server.system)
	b = binary.BigEndian.AppendUint32(b, mk.server.timeline)
	return loader.Checkpoint(binary.BigEndian.AppendUint64(b, uint64(mk.at)))
}

// parseMark reads a checkpoint. Those of later versions may have more. What is none names another catalog or server.
func parseMark(from loader.Checkpoint) (m mark) {
	m.catalog = string(from)
	if len(from) <= sha256.Size {
		return m
	}
	f := &fields{rest: []byte(from[sha256.Size:])}
	m.catalog = string(from[:sha256.Size])
	if m.server.system, m.server.timeline, m.at = f.uint64(), f.uint32(), loader.Position(f.uint64()); f.short {
		m.server, m.at = serverID{}, 0
	}
	return m
}

// differs returns why the stream does not continue what was certified, whatever the slot is; "": it may do so.
func (st *stream) differs(known mark) loader.Gap {
	switch {
	case known.catalog == "":
		return ""
	case known.catalog != st.catalog:
		return catalogChanged
	case known.server.system != st.server.id.system:
		return "the server is another one"
	case known.server.timeline != st.server.id.timeline:
		return "the server is a standby that was promoted, or was restored from a backup"
	case known.at > st.server.end:
		return "the server's log ends before what it has sent: the server went back in time"
	}
	return ""
}

// identify asks which server it is.
func identify(ctx context.Context, conn *pgconn.PgConn) (s server, err error) {
	row, err := one(ask(ctx, conn, 3, "IDENTIFY_SYSTEM"))
	if err != nil {
		return s, err
	}
	system, err := strconv.ParseUint(row[0], 10, 64)
	timeline, err2 := strconv.ParseUint(row[1], 10, 32)
	end, err3 := parsePosition(row[2])
	s = server{serverID{system, uint32(timeline)}, end}
	return s, errors.Join(err, err2, err3)
}

// parsePosition reads a position as PostgreSQL writes it.
func parsePosition(text string) (loader.Position, error) {
	high, low, _ := strings.Cut(text, "/")
	h, err := strconv.ParseUint(high, 16, 32)
	l, err2 := strconv.ParseUint(low, 16, 32)
	return loader.Position(h<<32 | l), errors.Join(err, err2)
}
