package transport

// Answers collects the answers to calls that came in one read, and the connections that wait to
// write them.
type Answers struct {
	Frame []byte // of the answer; its buffer is reused for the next one

	writers []Writer
}

// Writer writes what waits for a connection, as far as that is possible without waiting.
type Writer interface{ WriteNow() }

// Add makes Write call w.
func (a *Answers) Add(w Writer) { a.writers = append(a.writers, w) }

// Write makes the writers write, in the order in which they were added.
func (a *Answers) Write() {
	for _, w := range a.writers {
		w.WriteNow()
	}
	clear(a.writers)
	a.writers = a.writers[:0]
}
