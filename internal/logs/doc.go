// Package logs writes a process's log, so that nobody outside can make it long,
// slow or false.
//
// Input is a stream and records of slog; output is one line for each, text or JSON.
// Lines of one cause (level, message, and the host or namespace that they are about)
// are ten a minute, all lines together ten a second after a burst of 100; those that
// are left out cost no formatting, are counted, and are summed up every ten seconds.
// Errors are held to the first bound alone.
//
// A stream that blocks or is gone costs lines, which are counted, and nothing else:
// lines wait for it in 256 KiB, and one goroutine writes them. Start begins it and
// Close ends it, unless the stream holds it. Lines that wait are lost if the process
// panics.
//
// What a stranger has written cannot end a line, nor move a terminal's cursor: see
// Plain and JSON, which the command uses too.
package logs
