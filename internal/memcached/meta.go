package memcached

import (
	"bytes"
	"cmp"
	"encoding/base64"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// meta reads a meta command. letter is the second one of its name.
func (c *command) meta(letter byte, args, data []byte) {
	switch letter {
	case 'g':
		c.metaKey(verbMetaGet, args)
	case 's':
		c.storage(verbMetaSet, wire.ModeSet, args, data)
	case 'd':
		c.metaKey(verbMetaDelete, args)
	case 'a':
		c.delta = 1
		c.metaKey(verbMetaArithmetic, args)
	case 'n':
		c.say("MN")
	case 'e':
		c.metaDebug(args)
	default:
		c.sayUnknown()
	}
}

const (
	tooManyFlags = "CLIENT_ERROR options flags too long"
	longOpaque   = "CLIENT_ERROR opaque token too long"
	badToken     = "CLIENT_ERROR bad token in command line format"
)

// metaKey reads `<key> <flags>*`. Only mg is told what is wrong with a flag.
func (c *command) metaKey(v verb, args []byte) {
	key, flags := word(args)
	if len(key) == 0 {
		c.say(errorLine)
		return
	}
	if c.verb = v; !c.setKey(key) {
		return
	}
	switch why := c.readFlags(flags); {
	case why == "" && v == verbMetaArithmetic:
		c.arithmeticMode()
	case why == "":
	case v == verbMetaGet && why == tooManyFlags:
		c.say("CLIENT_ERROR options flags are too long")
	case v == verbMetaGet, why == longOpaque, why == tooManyFlags:
		c.say(why)
	default:
		c.say("CLIENT_ERROR invalid or duplicate flag")
	}
}

// metaSet reads the flags of ms. It returns false if it has failed the command.
func (c *command) metaSet(flags []byte) bool {
	if why := c.readFlags(flags); why != "" {
		c.say(why)
		return false
	}
	switch c.modeToken {
	case 0, 'S':
	case 'E':
		c.mode = wire.ModeAdd
	case 'A':
		c.mode = wire.ModeAppend
	case 'P':
		c.mode = wire.ModePrepend
	case 'R':
		c.mode = wire.ModeReplace
	default:
		c.say("CLIENT_ERROR invalid mode for ms M token")
		return false
	}
	return true
}

func (c *command) metaDebug(args []byte) {
	key, rest := word(args)
	if len(key) == 0 || len(key) > maxKeyLen {
		c.say(badFormat)
		return
	}
	c.verb = verbMetaDebug
	c.setKey(key)
	if flag, _ := word(rest); string(flag) == "b" && !c.decodeKey() {
		c.say(badFormat)
	}
}

// decodeKey takes the key for base64. It returns false if it is not. No key has two spellings.
func (c *command) decodeKey() bool {
	n, err := strict.Decode(c.decoded[:], c.written)
	c.key, c.base64 = c.decoded[:n], true
	return err == nil && n > 0 && bytes.IndexByte(c.written, '\r') < 0 // which Decode passes over
}

var strict = base64.StdEncoding.Strict()

// readFlags reads the flags of a meta command. It returns the answer to wrong ones. Of several it
// is the one that memcached answers.
func (c *command) readFlags(flags []byte) (why string) {
	if len(flags) > 2*maxFlags { // most have few
		if n, _ := measure(flags); n > maxFlags {
			return tooManyFlags
		}
	}
	var seen [2]uint64
	long := ""
	for {
		var f []byte
		if n := len(flags); n > 1 && flags[0] == ' ' && flags[1] != ' ' && (n == 2 || flags[2] == ' ') {
			f, flags = flags[1:2], flags[2:] // a letter, as most flags are
		} else if f, flags = word(flags); len(f) == 0 {
			return cmp.Or(why, long)
		}
		o := f[0]
		if o >= 127 || seen[o>>6]&(1<<(o&63)) != 0 {
			return "CLIENT_ERROR duplicate flag"
		}
		seen[o>>6] |= 1 << (o & 63)
		switch wrong, known := c.flag(o, f[1:]); {
		case !known:
			return "CLIENT_ERROR invalid flag"
		case wrong != "" && (o != 'F' || why == ""):
			why = wrong
		}
		switch o {
		case 'O':
			if len(f) > maxOpaque {
				long = longOpaque
				break
			}
			c.opaque = f
			fallthrough
		case 'k', 's', 't', 'c', 'f', 'l', 'h':
			c.repeated[c.nRepeated] = o
			c.nRepeated++
		}
	}
}

// maxOpaque bounds an opaque token with its flag, in bytes.
const maxOpaque = 32

// flag reads one flag and its token. wrong is the answer to a token that is not valid.
func (c *command) flag(o byte, token []byte) (wrong string, known bool) {
	ok := true
	switch o {
	case 'O', 'P', 'L', 'k', 's', 't', 'c', 'f':
	case 'b':
		if !c.decodeKey() {
			return "CLIENT_ERROR error decoding key", true
		}
	case 'N':
		c.vivify = true
		c.vivifyTime, ok = signed(token)
	case 'T':
		c.setsTTL = true
		c.exptime, ok = signed(token)
	case 'R':
		c.recacheTime, ok = signed(token)
	case 'C':
		c.hasCAS = true
		c.cas, ok = unsigned(token, 64)
	case 'F':
		var flags uint64
		if flags, ok = unsigned(token, 32); !ok {
			return badFormat, true
		}
		c.flags = uint32(flags)
	case 'M':
		if len(token) != 1 {
			return "CLIENT_ERROR incorrect length for M token", true
		}
		c.modeToken = token[0]
	case 'J':
		if c.initial, ok = unsigned(token, 64); !ok {
			return "CLIENT_ERROR invalid numeric initial value", true
		}
	case 'D':
		if c.delta, ok = unsigned(token, 64); !ok {
			return "CLIENT_ERROR invalid numeric delta value", true
		}
	case 'v':
		c.withValue = true
	case 'h', 'l':
		c.inspect = true
	case 'u':
		c.unread = true
	case 'q':
		c.quiet = true
	case 'I':
		c.invalidate = true
	default:
		return "", false
	}
	if !ok {
		return badToken, true
	}
	return "", true
}

// arithmeticMode takes the mode of ma.
func (c *command) arithmeticMode() {
	switch c.modeToken {
	case 0, 'I', '+':
	case 'D', '-':
		c.down = true
	default:
		c.say("CLIENT_ERROR invalid mode for ma M token")
	}
}
