package origintest

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// Hostile returns the address of an origin of a kind ("http", "redis", "memcached",
// "postgres") that misbehaves in the given mode.
func Hostile(t testing.TB, kind, mode string) string {
	t.Helper()
	testenv.ReadsClock(t, 20*time.Millisecond, "an origin that never pauses for long, against a real timeout")
	lie, ok := lies[kind][mode]
	if !ok {
		t.Fatalf("there is no mode %s of %s", mode, kind)
	}
	return serve(t, func(c net.Conn, ended <-chan struct{}) { lie(&liar{c, ended}) })
}

// Modes lists the modes of a kind.
func Modes(kind string) []string { return slices.Sorted(maps.Keys(lies[kind])) }

// liar is one connection to a hostile origin.
type liar struct {
	net.Conn
	ended <-chan struct{}
}

// hear returns what the client sends next. It returns nil when the client has closed.
func (l *liar) hear() []byte {
	b := make([]byte, 4096)
	n, err := l.Read(b)
	if err != nil {
		return nil
	}
	return b[:n]
}

func (l *liar) say(parts ...string) bool {
	_, err := io.WriteString(l, strings.Join(parts, ""))
	return err == nil
}

// forever repeats what until the client goes.
func (l *liar) forever(what string) {
	b := []byte(strings.Repeat(what, max(1, 64<<10/len(what))))
	for {
		if _, err := l.Write(b); err != nil {
			return
		}
	}
}

// params sends PostgreSQL's parameter messages, each preceded by behind and each with
// another name, until the client goes. They are built in place, because tests count what
// a load allocates.
func (l *liar) params(behind string) {
	b := []byte(behind + message('S', "k000000\x00"+filler[:60_000]+"\x00"))
	for i := 0; ; i++ {
		copy(b[len(behind)+6:], fmt.Sprintf("%06d", i%1_000_000))
		if _, err := l.Write(b); err != nil {
			return
		}
	}
}

// drip sends what byte by byte, again and again.
func (l *liar) drip(what string) {
	for i := 0; l.say(what[i%len(what) : i%len(what)+1]); i++ {
		select {
		case <-l.ended:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// silent sends nothing until the client goes.
func (l *liar) silent() {
	for l.hear() != nil {
	}
}

var filler = strings.Repeat("x", 64<<10)

// noise belongs to no protocol.
var noise = strings.Repeat("\x00\xff\x1b[2J\u202e\r\n~", 4<<10)

type lie func(*liar)

// says sends what after the first request, and then stays silent.
func says(what string) lie {
	return func(l *liar) {
		if l.hear() != nil && l.say(what) {
			l.silent()
		}
	}
}

// onceAsked runs do after the first request.
func onceAsked(do func(*liar)) lie {
	return func(l *liar) {
		if l.hear() != nil {
			do(l)
		}
	}
}

var lies = map[string]map[string]lie{
	"http": {
		"redirect": says("HTTP/1.1 302 F\r\nLocation: http://127.0.0.1:9/secret\r\nContent-Length: 0\r\n\r\n"),
		"huge": onceAsked(func(l *liar) {
			l.say("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
			l.forever(filler)
		}),
		"hugechunk": onceAsked(func(l *liar) {
			l.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			l.forever("10000\r\n" + filler + "\r\n")
		}),
		"drip": onceAsked(func(l *liar) {
			l.say("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
			l.drip("x")
		}),
		"bomb": onceAsked(func(l *liar) {
			l.say("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n", bomb())
		}),
		"headers": onceAsked(func(l *liar) {
			l.say("HTTP/1.1 200 OK\r\n")
			l.forever("X-A: " + filler[:1000] + "\r\n")
		}),
		"header":   onceAsked(func(l *liar) { l.say("HTTP/1.1 200 OK\r\nX: "); l.forever(filler) }),
		"continue": onceAsked(func(l *liar) { l.forever("HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n") }),
		"trailers": onceAsked(func(l *liar) {
			l.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n1\r\nx\r\n0\r\n")
			l.forever("X-A: " + filler[:1000] + "\r\n")
		}),
		"lines": onceAsked(func(l *liar) {
			l.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			l.forever("10000\r\n" + strings.Repeat("\n", 64<<10) + "\r\n")
		}),
		"members": onceAsked(func(l *liar) {
			l.say("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n")
			l.forever(zip())
		}),
		"garbage": says(noise),
		"silent":  (*liar).silent,
	},
	"redis": {
		"bulk":    redis(":-1\r\n$2000000000\r\n", ""),
		"array":   redis("*2000000000\r\n", ""),
		"nest":    redis("", "*1\r\n"),
		"nested":  redis(strings.Repeat("*1\r\n", 60_000), ""),
		"strings": redis("*60000\r\n", "$4000\r\n"+filler[:4000]+"\r\n"),
		"pages":   redis("*2\r\n$1\r\n7\r\n*0\r\n", ""),
		"same":    redis("*2\r\n$1\r\n7\r\n*1000\r\n"+strings.Repeat("$1\r\nk\r\n", 1000), ""),
		"line":    redis("+", filler),
		"lines":   redis("*65000\r\n", "+"+filler[:60_000]+"\r\n"),
		"push":    redis("", ">1\r\n+x\r\n"),
		"hello":   onceAsked(func(l *liar) { l.say("%1000000000\r\n"); l.forever("$1\r\na\r\n") }),
		"errors":  redis("-ERR \x1b[2J\u202e"+filler[:1000]+" at 127.0.0.1\r\n", ""),
		"garbage": says(noise),
		"drip":    onceAsked(func(l *liar) { l.drip("+OK\r\n") }),
		"silent":  (*liar).silent,
	},
	"memcached": {
		"huge":     memcached(func(key string) string { return "VALUE " + key + " 0 4294967295\r\n" }),
		"space":    memcached(func(key string) string { return "VALUE  " + key + " 0 4294967290\r\n" }),
		"tab":      memcached(func(key string) string { return "VALUE " + key + "\t0 0 4294967290\r\n" }),
		"cr":       memcached(func(key string) string { return "VALUE " + key + " 0 4000000000 1\r\n" }),
		"otherkey": memcached(func(string) string { return "VALUE other 0 5\r\nother\r\nEND\r\n" }),
		"nokey":    memcached(func(string) string { return "VALUE  0 5\r\nother\r\nEND\r\n" }),
		"twice": memcached(func(key string) string {
			return strings.Repeat("VALUE "+key+" 0 1\r\nx\r\n", 2) + "END\r\n"
		}),
		"error":   memcached(func(string) string { return "SERVER_ERROR \x1b[2J at 127.0.0.1\r\n" }),
		"many":    onceAsked(func(l *liar) { l.forever("VALUE k 0 1\r\nx\r\n") }),
		"line":    onceAsked(func(l *liar) { l.forever(filler) }),
		"garbage": says(noise),
		"drip":    onceAsked(func(l *liar) { l.drip("V") }),
		"silent":  (*liar).silent,
	},
	"postgres": {
		"huge":    says("R\x7f\xff\xff\xff"),
		"garbage": says(noise),
		"drip":    onceAsked(func(l *liar) { l.drip("N") }),
		"silent":  (*liar).silent,
		"notices": onceAsked(func(l *liar) { l.say(authOK); l.forever(message('N', "\x00")) }),
		"bignotices": onceAsked(func(l *liar) {
			l.say(authOK)
			l.forever(message('N', "M"+filler[:60_000]+"\x00\x00"))
		}),
		"params":     onceAsked(func(l *liar) { l.params(authOK) }),
		"passwords":  onceAsked(func(l *liar) { l.forever(message('R', "\x00\x00\x00\x03")) }),
		"iterations": scram("10000000"),
		"logins":     scram("100000"),
		"refused": says(message('E',
			"SFATAL\x00VFATAL\x00C53300\x00Mno \x1b[2J for user tester at 127.0.0.1\x00\x00")),
		"row": postgres(func(l *liar) {
			l.say(described, "D\x7f\xff\xff\xf0\x00\x01\x7f\xff\xff\xe0")
			l.forever(filler)
		}),
		"rows": postgres(func(l *liar) {
			l.say(described)
			l.forever(message('D', "\x00\x01\x00\x00\x00\x01x"))
		}),
		"laternotices": postgres(func(l *liar) { l.forever(message('N', "M"+filler[:60_000]+"\x00\x00")) }),
		"laterparams":  postgres(func(l *liar) { l.params("") }),
		"columns": postgres(func(l *liar) {
			l.say(message('1', ""), message('t', "\x00\x01\x00\x00\x00\x19"))
			l.forever(message('T', "\x00\x00"))
		}),
	},
}

// zip compresses parts.
func zip(parts ...[]byte) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	for _, part := range parts {
		_, _ = w.Write(part)
	}
	_ = w.Close()
	return b.String()
}

// bomb returns 1 GiB of zeros, compressed.
func bomb() string {
	zeros := slices.Repeat([][]byte{make([]byte, 1<<20)}, 64)
	return strings.Repeat(zip(zeros...), 16) // gzip streams may be concatenated
}

// redis refuses HELLO and answers every other command with first. If then is not empty,
// it repeats then until the client goes.
func redis(first, then string) lie {
	return func(l *liar) {
		for {
			heard := l.hear()
			switch {
			case heard == nil:
				return
			case bytes.Contains(bytes.ToUpper(heard), []byte("HELLO")):
				l.say("-ERR unknown command\r\n")
			case !l.say(first):
				return
			case then != "":
				l.forever(then)
			}
		}
	}
}

// memcached answers each request that names a key.
func memcached(answer func(key string) string) lie {
	return func(l *liar) {
		for {
			fields := strings.Fields(string(l.hear()))
			if len(fields) < 2 || !l.say(answer(fields[1])) {
				return
			}
		}
	}
}

// message encodes a message of PostgreSQL's protocol.
func message(kind byte, body string) string {
	b := binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(body)))
	return string(b) + body
}

var (
	authOK    = message('R', "\x00\x00\x00\x00")
	ready     = message('Z', "I")
	described = message('1', "") + message('t', "\x00\x01\x00\x00\x00\x19") +
		message('T', "\x00\x01b\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x00") + ready
)

// scram has the client hash its password n times in each log-in.
func scram(n string) lie {
	return onceAsked(func(l *liar) {
		l.say(message('R', "\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00"))
		_, nonce, _ := strings.Cut(string(l.hear()), "r=")
		l.say(message('R', "\x00\x00\x00\x0br="+nonce+"x,s=c2FsdA==,i="+n))
		l.hear()
	})
}

// postgres greets correctly, and runs then at the first query.
func postgres(then func(*liar)) lie {
	return onceAsked(func(l *liar) {
		if l.say(authOK, ready) && l.hear() != nil {
			then(l)
			l.silent()
		}
	})
}
