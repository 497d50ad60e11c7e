package loader

import "bytes"

// Scanner follows the answers of a text protocol as their bytes arrive, such as those of Redis and
// memcached. An answer consists of lines; a line may announce a number of bytes that follow it, with
// a line end. A connection that has each answer pass a Scanner refuses a length that is too great before
// a client library allocates it.
type Scanner struct {
	Most int // bytes of a line, at most
	Keep int // first bytes of a line that Line gets
	// Line takes the first bytes of a line, and the length of all of it, with a CR if
	// it ends with one. It returns the number of bytes that the line announces, or -1,
	// and whether the answer is acceptable. It must not keep the bytes.
	Line func(first []byte, length int) (announced int, ok bool)

	line   []byte // the first bytes of the incomplete line
	length int    // bytes of the line so far
	skip   int    // remaining bytes of an announced string and its line end
}

// Reset begins a new answer.
func (s *Scanner) Reset() { s.line, s.length, s.skip = s.line[:0], 0, 0 }

// Between reports whether the last byte ended a line, or an announced string.
func (s *Scanner) Between() bool { return s.length == 0 && s.skip == 0 }

// Pass takes the next bytes. It returns false if the answer is not acceptable.
func (s *Scanner) Pass(b []byte) bool {
	for len(b) > 0 {
		if n := min(s.skip, len(b)); n > 0 {
			s.skip -= n
			b = b[n:]
			continue
		}
		part, rest, ended := bytes.Cut(b, []byte{'\n'})
		s.line = append(s.line, part[:min(len(part), s.Keep-len(s.line))]...)
		if s.length += len(part); s.length > s.Most {
			return false
		}
		if ended {
			announced, ok := s.Line(bytes.TrimSuffix(s.line, []byte{'\r'}), s.length)
			if !ok {
				return false
			}
			if announced >= 0 {
				s.skip = announced + len("\r\n")
			}
			s.line, s.length = s.line[:0], 0
		}
		b = rest
	}
	return true
}
