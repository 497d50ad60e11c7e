package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/time/rate"

	"github.com/cachesidecar/cachesidecar/loader"
)

// A server chooses how often this host hashes the password of a log-in (SCRAM): 4,096 times, unless scram_iterations
// says otherwise. pgx computes to the end, whatever becomes of the load: 100,000 take a sixtieth of a second.
const (
	maxIterations = 100_000         // of a log-in
	iterationRate = 50_000          // a second, of all log-ins at a server
	maxLoginWait  = 3 * time.Second // until a log-in may begin: any that mayConnect lets pass, one at a time
)

// errLogins has no word of the server, because apps are told an ErrBusy as it is.
var errLogins = fmt.Errorf("%w: more log-ins at its server wait than it has iterations of SCRAM for: use fewer "+
	"connections, or lower the server's scram_iterations", loader.ErrBusy)

// servers has the pace of the log-ins at each server of a DSN, also of several origins and feeds.
var servers sync.Map // from host:port to *rate.Limiter

// paceOf returns the pace of the log-ins at the server of c.
func paceOf(c *pgconn.Config) *rate.Limiter {
	name := net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))
	pace, _ := servers.LoadOrStore(name, newPace())
	return pace.(*rate.Limiter)
}

func newPace() *rate.Limiter { return rate.NewLimiter(iterationRate, maxIterations) }

// newFrontend returns what makes the frontend of a connection to the server of c.
func newFrontend(c *pgconn.Config) pgconn.BuildFrontendFunc {
	pace := paceOf(c)
	return func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		return pgproto3.NewFrontend(&loginReader{r: r, pace: pace}, w)
	}
}

// mayConnect returns an error if log-ins at the server of c wait for a second already: a pool does not connect for
// nothing.
func mayConnect(_ context.Context, c *pgx.ConnConfig) error {
	if paceOf(&c.Config).Tokens() < -iterationRate {
		return errLogins
	}
	return nil
}

// awaitLogin returns when a log-in with n iterations may begin.
func awaitLogin(pace *rate.Limiter, n int) error {
	if n > maxIterations {
		return fmt.Errorf("the server asks for %d iterations of SCRAM, and %d are the most: lower its "+
			"scram_iterations, and set the role's password again", n, maxIterations)
	}
	turn := pace.ReserveN(time.Now(), n)
	if turn.Delay() > maxLoginWait {
		turn.Cancel()
		return errLogins
	}
	time.Sleep(turn.Delay())
	return nil
}

// loginReader follows the messages of a connection until the server is ready, and passes on its challenge of
// SCRAM when the log-in may begin.
type loginReader struct {
	r     io.Reader
	pace  *rate.Limiter
	head  [5]byte
	read  []byte // has been read, and not passed on
	rest  int    // bytes of the present message that come after it
	ready bool
	asked int // messages about the log-in
}

func (login *loginReader) Read(p []byte) (int, error) {
	if len(login.read) == 0 && login.rest == 0 && !login.ready {
		if err := login.begin(); err != nil {
			return 0, err
		}
	}
	switch {
	case len(login.read) > 0:
		n := copy(p, login.read)
		login.read = login.read[n:]
		return n, nil
	case login.ready:
		return login.r.Read(p)
	}
	n, err := login.r.Read(p[:min(len(p), login.rest)])
	login.rest -= n
	return n, err
}

// What a server may ask for in a log-in. SCRAM takes four messages, and a challenge about 100 bytes.
const (
	maxAsked     = 16 // messages
	maxChallenge = 4 << 10
)

// begin reads the beginning of a message, and all of one that may be a challenge.
func (login *loginReader) begin() error {
	head := login.head[:]
	if _, err := io.ReadFull(login.r, head); err != nil {
		return err
	}
	login.read, login.rest = head, max(0, int(binary.BigEndian.Uint32(head[1:]))-4)
	login.ready = head[0] == 'Z'
	if head[0] != 'R' {
		return nil
	}
	if login.asked++; login.asked > maxAsked || login.rest > maxChallenge {
		return errTooLong
	}
	challenge := make([]byte, login.rest)
	if _, err := io.ReadFull(login.r, challenge); err != nil {
		return err
	}
	login.read, login.rest = append(head, challenge...), 0
	if n := iterations(challenge); n > 0 {
		return awaitLogin(login.pace, n)
	}
	return nil
}

// iterations returns how often a challenge of SCRAM has the password hashed: AuthenticationSASLContinue, with
// r=…,s=…,i=…. Zero: it is none.
func iterations(challenge []byte) int {
	const sasl = "\x00\x00\x00\x0b"
	parts := bytes.SplitN(challenge, []byte{','}, 3)
	if len(parts) < 3 || !bytes.HasPrefix(challenge, []byte(sasl)) {
		return 0
	}
	n, _ := strconv.Atoi(string(bytes.TrimPrefix(parts[2], []byte("i="))))
	return n
}
