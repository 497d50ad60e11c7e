package quota

// Sent is how many bytes are to be sent to one host, by the process that they are sent for. A nil
// process is this host. The zero Sent is empty; its user has a lock.
type Sent struct{ bytes map[*Account]int64 }

// Add counts n more bytes for a process.
func (s *Sent) Add(process *Account, n int64) {
	if s.bytes == nil {
		s.bytes = map[*Account]int64{}
	}
	if s.bytes[process] += n; s.bytes[process] == 0 {
		delete(s.bytes, process)
	}
}

// Empty says whether nothing is counted.
func (s *Sent) Empty() bool { return len(s.bytes) == 0 }

// Much says whether a process has more than a fair part of most bytes.
func (s *Sent) Much(process *Account, most int) bool {
	return s.bytes[process] > int64(most/max(1, len(s.bytes)))
}

// of returns how many bytes there are for a tenant, a process, or the process of a connection.
func (s *Sent) of(a *Account) (n int64) {
	if s == nil {
		return 0
	}
	for process, bytes := range s.bytes {
		if process != nil && (process == a || process.up == a || process == a.up) {
			n += bytes
		}
	}
	return n
}
