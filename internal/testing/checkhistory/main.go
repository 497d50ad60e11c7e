// Command checkhistory judges recorded histories by package history:
//
//	go run ./internal/testing/checkhistory FILE...
//
// The files are lines of JSON, as package history describes them; together they are one
// history, whose rules the first file has. It prints how many operations there are, and what is
// wrong. The exit status is 1 if something is wrong or no read has found a value, and 2 if a
// file cannot be read.
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/cachesidecar/cachesidecar/internal/testing/history"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(files []string, out, errs io.Writer) (status int) {
	var all history.History
	for i, name := range files {
		h, err := read(name)
		if err != nil {
			fmt.Fprintf(errs, "%s: %v\n", name, err)
			return 2
		}
		if i == 0 {
			all.Rules = h.Rules
		} else {
			all.Rules.Excuses = append(all.Rules.Excuses, h.Rules.Excuses...)
		}
		all.Ops = append(all.Ops, h.Ops...)
	}
	counts, reads := map[string]int{}, 0
	for i := range all.Ops {
		o := &all.Ops[i]
		counts[fmt.Sprintf("%v %v", o.Kind, o.Outcome)]++
		if o.Kind == history.Read && o.Outcome == history.Done {
			reads++
		}
	}
	wrong := all.Check()
	fmt.Fprintf(out, "%d operations: %v; %d are wrong\n", len(all.Ops), counts, len(wrong))
	for _, line := range history.Lines(wrong) {
		fmt.Fprintln(out, line)
	}
	if reads == 0 {
		fmt.Fprintln(errs, "no read has found a value: the history proves nothing")
	}
	if len(wrong) > 0 || reads == 0 {
		return 1
	}
	return 0
}

func read(name string) (*history.History, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return history.Decode(f)
}
