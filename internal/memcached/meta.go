package memcached

import (
	"bytes"
	"cmp"
	"encoding/base64"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// meta reads a meta command. letter is the second one of its name.
func (c *Command) meta(letter byte, args, data []byte) {
	switch letter {
	case 'g':
		c.metaKey(MetaGet, args, "CLIENT_ERROR options flags are too long", "")
	case 's':
		c.metaSet(args, data)
	case 'd':
		c.metaKey(MetaDelete, args, tooManyFlags, badFlag)
	case 'a':
		c.Delta = 1
		c.metaKey(MetaArithmetic, args, tooManyFlags, badFlag)
		c.arithmeticMode()
	case 'n':
		c.verb = MetaNoop
	case 'e':
		c.metaDebug(args)
	default:
		c.unknown()
	}
}

const (
	tooManyFlags = "CLIENT_ERROR options flags too long"
	badFlag      = "CLIENT_ERROR invalid or duplicate flag"
	longOpaque   = "CLIENT_ERROR opaque token too long"
	badToken     = "CLIENT_ERROR bad token in command line format"
)

// metaKey reads `<key> <flags>*`. tooMany and bad are the answers to wrong flags; with an
// empty bad the answer says what is wrong.
func (c *Command) metaKey(v Verb, args []byte, tooMany, bad string) {
	key, flags := word(args)
	if len(key) == 0 {
		c.fail(errorLine)
		return
	}
	if c.verb = v; !c.setKey(key) {
		return
	}
	if len(flags) > 2*maxFlags { // most have few
		if n, _ := measure(flags); n > maxFlags {
			c.fail(tooMany)
			return
		}
	}
	if why := c.readFlags(flags); why != "" {
		if bad != "" && why != longOpaque {
			why = bad
		}
		c.failMeta(why)
	}
}

// failMeta is fail for a meta command: its errors are answered in spite of the flag q.
func (c *Command) failMeta(answer string) {
	c.fail(answer)
	c.quiet = false
}

func (c *Command) metaSet(args, data []byte) {
	var s storage
	if s.readMeta(args); s.err != "" {
		c.fail(s.err)
		return
	}
	c.verb = MetaSet
	c.setKey(s.key)
	if why := c.readFlags(s.meta); why != "" {
		c.failMeta(why)
		return
	}
	if !c.storageMode() {
		c.failMeta("CLIENT_ERROR invalid mode for ms M token")
		return
	}
	if c.value(s.length, data); c.verb == Invalid {
		c.quiet = false
	}
	// add with a version is an add; append and prepend compare by themselves.
	if c.HasCAS && (c.mode == wire.ModeSet || c.mode == wire.ModeReplace) {
		c.mode = wire.ModeCAS
	}
}

func (c *Command) metaDebug(args []byte) {
	key, rest := word(args)
	if len(key) == 0 || len(key) > MaxKeyLen {
		c.fail(badFormat)
		return
	}
	c.verb = MetaDebug
	c.setKey(key)
	if flag, _ := word(rest); string(flag) == "b" && !c.decodeKey() {
		c.fail(badFormat)
	}
}

// decodeKey takes the key for base64. It returns false if it is not. No key has two spellings.
func (c *Command) decodeKey() bool {
	n, err := strict.Decode(c.decoded[:], c.written)
	c.Key, c.base64 = c.decoded[:n], true
	return err == nil && n > 0 && bytes.IndexByte(c.written, '\r') < 0 // which Decode passes over
}

var strict = base64.StdEncoding.Strict()

// readFlags reads the flags of a meta command. It returns the answer to wrong ones. Of several it
// is the one that memcached answers.
func (c *Command) readFlags(flags []byte) (why string) {
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
func (c *Command) flag(o byte, token []byte) (wrong string, known bool) {
	ok := true
	switch o {
	case 'O', 'P', 'L', 'k', 's', 't', 'c', 'f':
	case 'b':
		if !c.decodeKey() {
			return "CLIENT_ERROR error decoding key", true
		}
	case 'N':
		c.vivify = true
		c.VivifyTime, ok = signed(token)
	case 'T':
		c.Touch = true
		c.Exptime, ok = signed(token)
	case 'R':
		c.Recache = true
		c.RecacheTime, ok = signed(token)
	case 'C':
		c.HasCAS = true
		c.CAS, ok = unsigned(token, 64)
	case 'F':
		var flags uint64
		if flags, ok = unsigned(token, 32); !ok {
			return badFormat, true
		}
		c.Flags = uint32(flags)
	case 'M':
		return c.setMode(token), true
	case 'J':
		if c.Initial, ok = unsigned(token, 64); !ok {
			return "CLIENT_ERROR invalid numeric initial value", true
		}
	case 'D':
		if c.Delta, ok = unsigned(token, 64); !ok {
			return "CLIENT_ERROR invalid numeric delta value", true
		}
	case 'v':
		c.withValue = true
	case 'h', 'l':
		c.Inspect = true
	case 'u':
		c.Unread = true
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

// setMode reads the token of M.
func (c *Command) setMode(token []byte) (wrong string) {
	if len(token) != 1 {
		return "CLIENT_ERROR incorrect length for M token"
	}
	c.modeToken = token[0]
	return ""
}

// storageMode takes the mode of ms. It returns false for an unknown one.
func (c *Command) storageMode() bool {
	switch c.modeToken {
	case 0, 'S':
		c.mode = wire.ModeSet
	case 'E':
		c.mode = wire.ModeAdd
	case 'A':
		c.mode = wire.ModeAppend
	case 'P':
		c.mode = wire.ModePrepend
	case 'R':
		c.mode = wire.ModeReplace
	default:
		return false
	}
	return true
}

// arithmeticMode takes the mode of ma.
func (c *Command) arithmeticMode() {
	if c.verb != MetaArithmetic {
		return
	}
	switch c.modeToken {
	case 0, 'I', '+':
	case 'D', '-':
		c.Down = true
	default:
		c.failMeta("CLIENT_ERROR invalid mode for ma M token")
	}
}
