package quota

// Sent is how many bytes are to be sent to one host, by the process that they are sent for. A nil
// process is this host. The zero Sent is empty; its user has a lock.
type Sent struct{ bytes map[*Account]int64 }

// Add counts n more bytes for a process.
func (sent *Sent) Add(process *Account, n int64) {
	if sent.bytes == nil {
		sent.bytes = map[*Account]int64{}
	}
	if sent.bytes[process] += n; sent.bytes[process] == 0 {
		delete(sent.bytes, process)
	}
}

// Empty says whether nothing is counted.
func (sent *Sent) Empty() bool { return len(sent.bytes) == 0 }

// Much says whether a process has more than a fair part of most bytes.
func (sent *Sent) Much(process *Account, most int) bool {
	return sent.bytes[process] > int64(most/max(1, len(sent.bytes)))
}

// of returns how many bytes there are for a tenant, a process, or the process of a connection.
func (sent *Sent) of(a *Account) (n int64) {
	if sent == nil {
		return 0
	}
	for process, bytes := range sent.bytes {
		if process != nil && (process == a || process.up == a || process == a.up) {
			n += bytes
		}
	}
	return n
}
