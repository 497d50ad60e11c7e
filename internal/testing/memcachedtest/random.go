package memcachedtest

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

// Random holds random conversations with a server and with memcached: the answers are the
// same, but for the versions of values.
func Random(t *testing.T, c, memcached *Conn, runs int, seed uint64) {
	t.Helper()
	for i := range runs {
		seed := seed + uint64(i)
		c.Ask("flush_all", "OK")
		memcached.Ask("flush_all", "OK")
		talk := &talk{rand: rand.New(rand.NewPCG(seed, 0)), versions: map[string][2]string{}}
		for range 200 {
			if !talk.both(t, c, memcached) {
				t.Fatalf("seed %d, after:\n%s", seed, strings.Join(talk.said[max(0, len(talk.said)-12):], "\n"))
			}
		}
	}
}

// talk is a random conversation with two servers.
type talk struct {
	rand     *rand.Rand
	versions map[string][2]string // of the keys, at each server
	said     []string
}

var ttlIn = regexp.MustCompile(` t\d+`)

var versionIn = regexp.MustCompile(`( c|^VALUE \S+ \d+ \d+ )(\d+)`)

// both sends a batch of commands to both servers, and compares the answers.
func (k *talk) both(t *testing.T, a, b *Conn) bool {
	t.Helper()
	var commands [2]strings.Builder
	for range 1 + k.rand.IntN(4) {
		one := k.command()
		for i := range commands {
			commands[i].WriteString(one[i])
		}
	}
	var said [2][]string
	for i, c := range []*Conn{a, b} {
		c.Send(commands[i].String() + "mn\r\n")
		for {
			line := c.Line()
			if line == "MN" || strings.Contains(line, "(") && strings.Contains(line, "read ") {
				said[i] = append(said[i], line)
				break
			}
			said[i] = append(said[i], line)
		}
	}
	k.said = append(k.said, fmt.Sprintf("%q", commands[0].String()))
	same := len(said[0]) == len(said[1])
	for i := range said[0] {
		if !same {
			break
		}
		same = Mask(said[0][i]) == Mask(said[1][i])
		k.note(said[0][i], said[1][i])
	}
	if !same {
		t.Errorf("got\n%q, memcached says\n%q", said[0], said[1])
	}
	return same
}

// Mask leaves a version out of a line, but not zero, and a TTL: that of a copy is a little
// less.
func Mask(line string) string {
	line = ttlIn.ReplaceAllString(line, " tN")
	return versionIn.ReplaceAllStringFunc(line, func(s string) string {
		if strings.HasSuffix(s, " c0") {
			return s
		}
		m := versionIn.FindStringSubmatch(s)
		return m[1] + "V"
	})
}

// note notes the version of a key that both servers have told.
func (k *talk) note(a, b string) {
	key := regexp.MustCompile(`^VALUE (\S+) \d+ \d+ (\d+)$`)
	if x, y := key.FindStringSubmatch(a), key.FindStringSubmatch(b); x != nil && y != nil {
		k.versions[x[1]] = [2]string{x[2], y[2]}
	}
}

func (k *talk) of(list ...string) string { return list[k.rand.IntN(len(list))] }

// value returns the length and the bytes of a value.
func (k *talk) value() string {
	v := k.of("", "x", "abc", "12", "\r\n", "a\r\nEND\r\nb", strings.Repeat("v", 1000), "0", "END")
	return fmt.Sprintf("%d\r\n%s\r\n", len(v), v)
}

// command returns a command for each of the two servers. Numbers have keys of their own:
// memcached may pad them with spaces, which only gets would show.
func (k *talk) command() [2]string {
	key, n := k.of("a", "b", "c", "dd", "k_1"), k.of("n", "m")
	switch c := k.rand.IntN(25); c {
	case 0, 1, 2:
		return twice(k.of("set", "add", "replace", "append", "prepend") + " " + key + k.of(" 0", " 7", " 4294967295") +
			k.of(" 0 ", " 100 ", " -1 ") + k.value())
	case 3, 4:
		return twice(k.of("get", "gets", "gat 100", "gats 0") + " " + key + k.of("", " a b c dd nope", " a", "  b "))
	case 5:
		return k.compare("cas "+key+" 5 0 3 ", key, "\r\nnew\r\n")
	case 6:
		return twice("delete " + key + k.of("", " 0", " 10", " noreply", " 0 noreply", " x noreply"))
	case 7:
		return twice("touch " + key + k.of(" 0", " 100", " -1", " x", "") + k.of("", " noreply"))
	case 8, 9:
		return twice(k.of("incr ", "decr ") + n + k.of(" 1", " 7", " 18446744073709551615", " x", " -1", "") +
			k.of("", " noreply"))
	case 10:
		return twice("set " + n + " 0 0 " +
			k.of("1\r\n5\r\n", "20\r\n18446744073709551615\r\n", "1\r\nx\r\n", "2\r\n5 \r\n"))
	case 11, 12:
		return twice("mg " + key + k.flags("v", "f", "k", "s", "q", "Oabc", "t", "u", "b", "c", "E"))
	case 21:
		// The answer has the new TTL, wherever its flag stands.
		return twice("mg " + key + k.of(" T0", " T100") + k.flags("v", "k", "c", "q"))
	case 13, 14:
		flags := k.flags("c", "k", "q", "Oxyz", "F5", "T100", "T0", "ME", "MA", "MP", "MR", "MS", "MX", "b", "I")
		return twice("ms " + key + " " + strings.Replace(k.value(), "\r\n", flags+"\r\n", 1))
	case 15:
		return k.compare("ms "+key+" 2 k C", key, " c\r\nhi\r\n")
	case 16:
		return twice("md " + key + k.flags("q", "k", "Oa", "b", "x"))
	case 17:
		return k.compare("md "+key+" C", key, "\r\n")
	case 18, 19:
		return twice("ma " + n +
			k.flags("N0", "N100", "J5", "D3", "MD", "M+", "MI", "M-", "MZ", "v", "k", "c", "T100", "T0"))
	case 20:
		return twice(k.of("flush_all", "flush_all noreply", "flush_all 0", "verbosity 1", "me nope", "stats reset"))
	}
	return twice(k.garbage())
}

func twice(s string) [2]string {
	if !strings.HasSuffix(s, "\r\n") {
		s += "\r\n"
	}
	return [2]string{s, s}
}

// compare returns a command with the version that each server has told of a key, or with a
// wrong one.
func (k *talk) compare(before, key, after string) [2]string {
	v, ok := k.versions[key]
	if !ok || k.rand.IntN(3) == 0 {
		v = [2]string{"1", "1"}
	}
	return [2]string{before + v[0] + after, before + v[1] + after}
}

// flags returns some of the flags.
func (k *talk) flags(list ...string) string {
	var b strings.Builder
	for range k.rand.IntN(5) {
		b.WriteString(" " + k.of(list...))
	}
	return b.String()
}

// garbage returns a line that is wrong in some way, and answered.
func (k *talk) garbage() string {
	long := strings.Repeat("k", 251)
	return k.of("bogus", "get", "gets", "set", "set a", "set a 0 0", "set a x 0 1", "set a 0 0 -1", "set a 0 0 x",
		"set a 0 0 3\r\nabcde", "ms", "ms a", "ms a x", "ms a 2 !\r\nhi", "ms a 2\r\nhix", "mg", "mg a !",
		"mg a v v", "mg a Tx", "md", "md a v v", "ma", "ma n Jx", "ma n Dx", "mx", "incr", "incr n", "touch a",
		"delete", "delete a b c d", "cas a 0 0 1", "cas a 0 0 1 x", "gat", "gat 1", "gat x a", " ", "x",
		"set "+long+" 0 0 1", "mg "+long, "flush_all x", "verbosity", "verbosity x", "delete "+long,
		"mg a O"+strings.Repeat("o", 40), "add a 0 0 1 noreply\r\nxy", "incr a 1 1 1")
}
