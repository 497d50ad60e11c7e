// Package logs writes a process's log such that input from outside cannot make it long,
// slow or false.
//
// Inputs are a stream and records of slog; output is one line per record, as text or
// JSON. A cause is a level, a message, and the host or namespace that a line is about.
// Each cause may write ten lines a minute, and all causes together ten lines a second
// after a burst of 100. Lines above that are not formatted; they are counted, and summed
// up every ten seconds. Only the first limit applies to errors.
//
// A stream that blocks or is gone costs lines, which are counted, and nothing else. Lines
// wait for the stream in a buffer of 256 KiB, and one goroutine writes them. Start starts
// the goroutine and Close ends it, unless a write to the stream blocks. Lines that wait
// are lost if the process panics.
//
// Text from outside cannot end a line or move a terminal's cursor: see Plain and JSON,
// which the command uses too.
package logs
