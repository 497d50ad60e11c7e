package memcached

import (
	"bytes"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// parse reads a request that Cut has found: a line, and the value that it announces. A value
// that is longer than allowed is not there.
func parse(request []byte, c *command) {
	c.fields = fields{}
	if key := plainGet(request); key != nil {
		c.verb = verbGet
		c.key, c.written = key, key
		return
	}
	line, data := lineOf(request)
	name, args := word(line)
	if len(name) < 2 {
		c.sayUnknown()
		return
	}
	switch name[0] {
	case 'g':
		c.get(name, args)
		return
	case 'm':
		if len(name) == 2 {
			c.meta(name[1], args, data)
			return
		}
	}
	if v, mode := storing(name); v != 0 {
		c.storage(v, mode, args, data)
		return
	}
	switch string(name) {
	case "delete":
		c.delete(args)
	case "incr", "decr":
		c.arithmetic(args)
		c.down = name[0] == 'd'
	case "touch":
		c.touch(args)
	case "flush_all":
		c.flushAll(args)
	case "stats":
		c.stats(args)
	case "version":
		c.say("VERSION " + version)
	case "quit":
		c.verb = verbQuit
	case "shutdown":
		c.say("ERROR: shutdown not enabled")
	case "verbosity":
		c.verbosity(args)
	case "bget":
		c.get(name[1:], args)
	case "lru_crawler":
		c.crawler(args)
	case "lru", "slabs", "watch", "cache_memlimit", "extstore", "refresh_certs":
		c.say(errorLine)
	default:
		c.sayUnknown()
	}
}

// plainGet returns the key of a request that is "get", one space and one key, as most are. It
// returns nil for any other.
func plainGet(request []byte) []byte {
	const name = "get "
	end := len(request) - len(crlf)
	if end <= len(name) || end > len(name)+maxKeyLen || string(request[:len(name)]) != name ||
		string(request[end:]) != crlf {
		return nil
	}
	key := request[len(name):end]
	if bytes.IndexByte(key, ' ') >= 0 || bytes.IndexByte(key, 0) >= 0 {
		return nil
	}
	return key
}

// isHTTP says whether a command's line could be one of an HTTP request, or of one of RTSP or SIP, which
// look alike: the first line, or the header Host. It comes before a body, whose first line may be a
// command, as the first line of the request, get /x HTTP/1.1.
func isHTTP(request []byte) bool {
	line, _ := lineOf(request)
	if name, _ := word(line); bytes.EqualFold(name, []byte("Host:")) {
		return true
	}
	protocol, _, versioned := bytes.Cut(lastWord(line), []byte("/"))
	switch string(protocol) {
	case "HTTP", "RTSP", "SIP":
		return versioned
	}
	return false
}

// say gives the command its answer. A meta command gets it in spite of its flag q.
func (c *command) say(line string) {
	c.quiet = c.quiet && !c.isMeta()
	c.verb, c.line = verbFixed, line
}

// sayUnknown answers a line that begins with no name of a command.
func (c *command) sayUnknown() {
	c.say(errorLine)
	c.unknown = true
}

// setKey takes a key as the client has written it. It returns false if the key is too long.
func (c *command) setKey(key []byte) bool {
	if len(key) > maxKeyLen {
		c.say(badFormat)
		return false
	}
	c.key, c.written = key, key
	return true
}

func (c *command) get(name, args []byte) {
	switch string(name) {
	case "get":
		c.verb = verbGet
	case "gets":
		c.verb = verbGets
	case "gat":
		c.verb = verbGat
	case "gats":
		c.verb = verbGats
	default:
		c.sayUnknown()
		return
	}
	key, rest := word(args)
	if len(key) == 0 {
		c.say(errorLine)
		return
	}
	if c.verb == verbGat || c.verb == verbGats {
		if !c.setTime(key) {
			return
		}
		if key, rest = word(rest); len(key) == 0 {
			return // memcached answers END
		}
	}
	if !c.setKey(key) {
		return
	}
	if c.rest = rest; len(rest) <= maxKeyLen {
		return
	}
	if _, longest := measure(rest); longest > maxKeyLen {
		c.say(badFormat)
	}
}

// nextKey returns the next further key of a get, and takes it off c.rest. It is nil if there
// is none.
func (c *command) nextKey() (key []byte) {
	if key, c.rest = word(c.rest); len(key) == 0 {
		return nil
	}
	return key
}

// storage reads a command that brings a value.
func (c *command) storage(v verb, mode wire.Mode, args, data []byte) {
	var s storage
	s.read(v, mode, args)
	c.quiet = s.quiet
	if s.err != "" {
		c.say(s.err)
		return
	}
	c.verb, c.mode = v, mode
	c.setKey(s.key)
	c.flags, c.exptime, c.cas = s.flags, s.exptime, s.cas
	if v == verbMetaSet && !c.metaSet(s.meta) {
		return
	}
	c.takeValue(s.length, data)
	// add with a version is an add; append and prepend compare by themselves.
	if c.verb == verbMetaSet && c.hasCAS && (c.mode == wire.ModeSet || c.mode == wire.ModeReplace) {
		c.mode = wire.ModeCAS
	}
}

// takeValue takes the value of a command from the bytes behind its line.
func (c *command) takeValue(length int, data []byte) {
	switch {
	case len(data) < length+len(crlf):
		c.say(tooLarge)
	case string(data[length:length+len(crlf)]) != crlf:
		c.say(badChunk)
	default:
		c.value = data[:length:length]
	}
}

// words reads the words behind a command's name, of which there are at least and at most so many. The
// last one may say that the client wants no answer. It returns none if it has failed the command.
func (c *command) words(v verb, args []byte, least, most int) (w [maxWords][]byte, n int) {
	if w, n = split(args); n < least || n > most {
		c.say(errorLine)
		return w, 0
	}
	c.verb = v
	c.quiet = n > 0 && string(w[n-1]) == noreply
	return w, n
}

func (c *command) delete(args []byte) {
	w, n := c.words(verbDelete, args, 1, 3)
	if n == 0 {
		return
	}
	if n == 1 {
		c.quiet = false // it is the key
	}
	zero := string(w[1]) == "0"
	if n == 2 && !zero && !c.quiet || n == 3 && !(zero && c.quiet) {
		c.say("CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]")
		return
	}
	c.setKey(w[0])
}

func (c *command) arithmetic(args []byte) {
	w, n := c.words(verbIncr, args, 2, 3)
	if n == 0 || !c.setKey(w[0]) {
		return
	}
	var ok bool
	if c.delta, ok = unsigned(w[1], 64); !ok {
		c.say("CLIENT_ERROR invalid numeric delta argument")
	}
}

func (c *command) touch(args []byte) {
	if w, n := c.words(verbTouch, args, 2, 3); n > 0 && c.setKey(w[0]) {
		c.setTime(w[1])
	}
}

// setTime reads an exptime. It returns false if it has failed the command.
func (c *command) setTime(word []byte) (ok bool) {
	if c.exptime, ok = signed(word); !ok {
		c.say("CLIENT_ERROR invalid exptime argument")
	}
	return ok
}

func (c *command) flushAll(args []byte) {
	if w, n := c.words(verbFlushAll, args, 0, 2); n == 2 || n == 1 && !c.quiet {
		c.setTime(w[0])
	}
}

func (c *command) verbosity(args []byte) {
	w, n := c.words(verbFixed, args, 1, 2)
	switch _, ok := unsigned(w[0], 32); {
	case n == 0:
	case ok:
		c.say("OK")
	default:
		c.say(badFormat)
	}
}

// stats reads `[<what>]`, and the words of a dump: of which slab class, and how many keys.
func (c *command) stats(args []byte) {
	w, _ := split(args)
	c.verb = verbStats
	if c.rest = w[0]; string(c.rest) != "cachedump" {
		return
	}
	class, ok1 := unsigned(w[1], 32)
	_, ok2 := unsigned(w[2], 32)
	switch {
	case len(w[2]) == 0:
		c.say("CLIENT_ERROR bad command line")
	case !ok1 || !ok2:
		c.say(badFormat)
	case class > maxClass:
		c.say("CLIENT_ERROR Illegal slab id")
	default:
		c.say("END")
	}
}

// maxClass is the last slab class of memcached. Tools ask for one after the other until an error.
const maxClass = 63

// crawler reads the one command of the crawler that is a question.
func (c *command) crawler(args []byte) {
	if w, n := split(args); n != 2 || string(w[0]) != "metadump" {
		c.say(errorLine)
		return
	}
	c.say("END")
}
