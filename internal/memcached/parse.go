package memcached

import "bytes"

// Parse reads a request that Cut has found: a line, and the value that it announces. A value
// that is longer than allowed is not there.
func Parse(request []byte, c *Command) {
	c.Fields = Fields{}
	if key := plainGet(request); key != nil {
		c.setVerb(Get)
		c.Key, c.Format.Key = key, key
		return
	}
	line, data := lineOf(request)
	name, args := word(line)
	if len(name) < 2 {
		c.unknown()
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
	if v := storageVerb(name); v != Invalid {
		c.storage(v, args, data)
		return
	}
	switch string(name) {
	case "delete":
		c.delete(args)
	case "incr":
		c.arithmetic(Incr, args)
	case "decr":
		c.arithmetic(Decr, args)
	case "touch":
		c.touch(args)
	case "flush_all":
		c.flushAll(args)
	case "stats":
		c.stats(args)
	case "version":
		c.setVerb(Version)
	case "quit":
		c.setVerb(Quit)
	case "shutdown":
		c.fail("ERROR: shutdown not enabled")
	case "verbosity":
		c.verbosity(args)
	case "bget":
		c.get(name[1:], args)
	case "lru_crawler":
		c.crawler(args)
	case "lru", "slabs", "watch", "cache_memlimit", "extstore", "refresh_certs":
		c.fail(errorLine)
	default:
		// The header Host comes before a body: its first line may be a command, as get /x HTTP/1.1.
		c.HTTP = bytes.EqualFold(name, []byte("Host:")) || isHTTP(line)
		c.unknown()
	}
}

// plainGet returns the key of a request that is "get", one space and one key, as most are. It
// returns nil for any other.
func plainGet(request []byte) []byte {
	const name = "get "
	end := len(request) - len(crlf)
	if end <= len(name) || end > len(name)+MaxKeyLen || string(request[:len(name)]) != name ||
		string(request[end:]) != crlf {
		return nil
	}
	key := request[len(name):end]
	if bytes.IndexByte(key, ' ') >= 0 || bytes.IndexByte(key, 0) >= 0 {
		return nil
	}
	return key
}

// IsHTTP says whether a request's line could be the first line of an HTTP request, or of one of
// RTSP or SIP, which look alike.
func IsHTTP(request []byte) bool {
	line, _ := lineOf(request)
	return isHTTP(line)
}

func isHTTP(line []byte) bool {
	protocol, _, versioned := bytes.Cut(lastWord(line), []byte("/"))
	switch string(protocol) {
	case "HTTP", "RTSP", "SIP":
		return versioned
	}
	return false
}

func (c *Command) setVerb(v Verb) { c.Verb, c.Format.Verb = v, v }

// fail makes the command Invalid with its answer.
func (c *Command) fail(answer string) { c.Verb, c.Format.Verb, c.Error = Invalid, Invalid, answer }

// unknown makes the command Invalid, since its line begins with no name of one.
func (c *Command) unknown() {
	c.fail(errorLine)
	c.Unknown = true
}

// setKey takes a key as the client has written it. It returns false if the key is too long.
func (c *Command) setKey(key []byte) bool {
	if len(key) > MaxKeyLen {
		c.fail(badFormat)
		return false
	}
	c.Key, c.Format.Key = key, key
	return true
}

func (c *Command) get(name, args []byte) {
	switch string(name) {
	case "get":
		c.setVerb(Get)
	case "gets":
		c.setVerb(Gets)
	case "gat":
		c.setVerb(Gat)
	case "gats":
		c.setVerb(Gats)
	default:
		c.unknown()
		return
	}
	key, rest := word(args)
	if len(key) == 0 {
		c.fail(errorLine)
		return
	}
	if c.Verb == Gat || c.Verb == Gats {
		var ok bool
		if c.Exptime, ok = signed(key); !ok {
			c.fail("CLIENT_ERROR invalid exptime argument")
			return
		}
		if key, rest = word(rest); len(key) == 0 {
			return // memcached answers END
		}
	}
	if !c.setKey(key) {
		return
	}
	if c.More = rest; len(rest) > MaxKeyLen && longest(rest) > MaxKeyLen {
		c.fail(badFormat)
	}
}

// NextKey returns the next further key of a get, and takes it off c.More. It is nil if there
// is none.
func (c *Command) NextKey() (key []byte) {
	if key, c.More = word(c.More); len(key) == 0 {
		return nil
	}
	return key
}

func (c *Command) storage(v Verb, args, data []byte) {
	var s storage
	s.read(v, args)
	c.Format.Quiet = s.quiet
	if s.err != "" {
		c.fail(s.err)
		return
	}
	c.setVerb(v)
	c.setKey(s.key)
	c.Flags, c.Exptime, c.CAS = s.flags, s.exptime, s.cas
	c.value(s.length, data)
}

// value takes the value of a command from the bytes behind its line.
func (c *Command) value(length int, data []byte) {
	switch {
	case len(data) < length+len(crlf):
		c.DropPresent = c.Verb == Set || c.Verb == MetaSet && c.Mode == Set
		c.fail(TooLarge)
	case string(data[length:length+len(crlf)]) != crlf:
		c.fail(badChunk)
	default:
		c.Value = data[:length:length]
	}
}

func (c *Command) delete(args []byte) {
	key, rest := word(args)
	second, rest := word(rest)
	third, rest := word(rest)
	switch {
	case len(key) == 0, !atEnd(rest):
		c.fail(errorLine)
		return
	case len(third) > 0:
		c.Format.Quiet = string(third) == noreply
	default:
		c.Format.Quiet = string(second) == noreply
	}
	zero := string(second) == "0"
	if len(third) > 0 && !(zero && c.Format.Quiet) || len(third) == 0 && len(second) > 0 && !zero && !c.Format.Quiet {
		c.fail("CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]")
		return
	}
	c.setVerb(Delete)
	c.setKey(key)
}

// keyAndNumber reads `<key> <word> [noreply]`.
func (c *Command) keyAndNumber(v Verb, args []byte) (number []byte, ok bool) {
	key, rest := word(args)
	number, rest = word(rest)
	quiet, rest := word(rest)
	if len(number) == 0 || !atEnd(rest) {
		c.fail(errorLine)
		return nil, false
	}
	c.setVerb(v)
	c.Format.Quiet = isLast(noreply, number, quiet)
	return number, c.setKey(key)
}

func (c *Command) arithmetic(v Verb, args []byte) {
	number, ok := c.keyAndNumber(v, args)
	if !ok {
		return
	}
	c.Down = v == Decr
	if c.Delta, ok = unsigned(number); !ok {
		c.fail("CLIENT_ERROR invalid numeric delta argument")
	}
}

func (c *Command) touch(args []byte) {
	number, ok := c.keyAndNumber(Touch, args)
	if !ok {
		return
	}
	if c.Exptime, ok = signed(number); !ok {
		c.fail("CLIENT_ERROR invalid exptime argument")
	}
}

func (c *Command) flushAll(args []byte) {
	delay, rest := word(args)
	quiet, rest := word(rest)
	if !atEnd(rest) {
		c.fail(errorLine)
		return
	}
	c.setVerb(FlushAll)
	if len(quiet) == 0 && string(delay) == noreply {
		c.Format.Quiet = true
		return
	}
	c.Format.Quiet = string(quiet) == noreply
	if len(delay) > 0 {
		var ok bool
		if c.Delay, ok = signed(delay); !ok {
			c.fail("CLIENT_ERROR invalid exptime argument")
		}
	}
}

func (c *Command) verbosity(args []byte) {
	level, rest := word(args)
	quiet, rest := word(rest)
	if len(level) == 0 || !atEnd(rest) {
		c.fail(errorLine)
		return
	}
	c.setVerb(Verbosity)
	c.Format.Quiet = isLast(noreply, level, quiet)
	if _, ok := parseUint32(level); !ok {
		c.fail(badFormat)
	}
}

// stats reads `[<what>]`, and the words of a dump: of which slab class, and how many keys.
func (c *Command) stats(args []byte) {
	c.setVerb(Stats)
	c.Sub, args = word(args)
	if string(c.Sub) != "cachedump" {
		return
	}
	class, args := word(args)
	limit, _ := word(args)
	of, ok1 := parseUint32(class)
	_, ok2 := parseUint32(limit)
	switch {
	case len(limit) == 0:
		c.fail("CLIENT_ERROR bad command line")
	case !ok1 || !ok2:
		c.fail(badFormat)
	case of > maxClass:
		c.fail("CLIENT_ERROR Illegal slab id")
	default:
		c.setVerb(Dump)
	}
}

// maxClass is the last slab class of memcached. Tools ask for one after the other until an error.
const maxClass = 63

// crawler reads the one command of the crawler that is a question.
func (c *Command) crawler(args []byte) {
	name, rest := word(args)
	which, rest := word(rest)
	if string(name) != "metadump" || len(which) == 0 || !atEnd(rest) {
		c.fail(errorLine)
		return
	}
	c.setVerb(Dump)
}
