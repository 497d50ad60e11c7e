// Package logs writes a process's log such that input from outside cannot make it long,
// slow or false.
//
// Inputs are a stream and records of slog; output is one line per record, as text or
// JSON. An event is a level and a message, which is the program's own. A cause is an event
// and the host, namespace or user that a line is about, never text of a request. Each cause
// may write ten lines a minute, and all causes of an event together one line in two seconds
// after a burst of 50, so that no event takes the lines of another. Lines above that are not
// formatted; they are counted, and summed up every ten seconds. Only the first limit applies
// to errors.
//
// A stream that blocks or is gone costs lines, which are counted, and nothing else. Lines
// wait for the stream in a buffer of 256 KiB, and one goroutine writes them. Start starts
// the goroutine and Close ends it, unless a write to the stream blocks. Lines that wait
// are lost if the process panics.
//
// Text from outside cannot end a line or move a terminal's cursor: see Plain and JSON,
// which the command uses too.
package logs
