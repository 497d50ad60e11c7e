package main

import (
	"regexp"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// candidate is a word that may stand at the end of a command line.
type candidate struct{ word, meaning string }

// files stands for all names of files. No word of a command line begins like it.
var files = candidate{word: ":files"}

// choices are the values of the flags that take one of a few.
var choices = map[string][]string{
	"ack":              {"owner", "all"},
	"log-format":       {"text", "json"},
	"log-level":        {"debug", "info", "warn", "error"},
	"partition-policy": {"available", "consistent"},
}

// line is a command line up to the cursor, as far as it is understood.
type line struct {
	commands []*cli.Command // that may come next
	command  *cli.Command   // nil before one is named
	flags    []cli.Flag
	given    []string // names of flags
	words    int      // arguments of the command
	value    cli.Flag // the flag whose value comes next
	ended    bool     // by "--"
}

// candidates returns what may stand in the place of the last one of words, which may be
// empty.
func candidates(app *cli.App, words []string) []candidate {
	if len(words) == 0 {
		return nil
	}
	before, last := words[:len(words)-1], words[len(words)-1]
	l := line{commands: app.Commands, flags: app.Flags}
	for _, w := range before {
		l.take(w)
	}
	name, value, cut := strings.Cut(last, "=")
	switch f := l.flag(name); {
	case l.value != nil:
		return matching(last, valuesOf(l.value))
	case f != nil && cut && isFlag(last) && !l.ended:
		list := matching(value, valuesOf(f))
		for i := range list {
			if list[i] != files {
				list[i].word = name + "=" + list[i].word
			}
		}
		return list
	case strings.HasPrefix(last, "-") && !l.ended:
		return matching(last, l.flagNames())
	}
	return matching(last, l.next(last == ""))
}

// joined returns words in which --flag=value is one word again. bash divides it into three,
// and replaces only the value, whose beginning is cut off from candidates then.
func joined(words []string) (out []string, cut string) {
	for i := 0; i < len(words); i++ {
		if n := len(out); words[i] == "=" && n > 0 && isFlag(out[n-1]) && !strings.Contains(out[n-1], "=") {
			out[n-1] += "="
			cut = out[n-1]
			if i++; i < len(words) {
				out[n-1] += words[i]
			}
			continue
		}
		out, cut = append(out, words[i]), ""
	}
	return out, cut
}

// take reads a word before the cursor, by the rules of reorder.
func (l *line) take(w string) {
	switch {
	case l.value != nil:
		l.value = nil
	case w == "--" && !l.ended:
		l.ended = true
	case isFlag(w) && !l.ended:
		name, _, cut := strings.Cut(w, "=")
		if f := l.flag(name); f != nil {
			l.given = append(l.given, f.Names()...)
			if _, isBool := f.(*cli.BoolFlag); !isBool && !cut {
				l.value = f
			}
		}
	case isHelp(w) && l.words == 0 && l.commands != nil: // what follows names a command
	default:
		c := find(l.commands, w)
		if c == nil {
			l.commands = nil
			l.words++
			return
		}
		l.command, l.flags, l.commands = c, c.Flags, c.Subcommands
	}
}

// flag returns the flag that is written so, such as --ns.
func (l *line) flag(written string) cli.Flag {
	for _, f := range l.flags {
		if slices.Contains(f.Names(), strings.TrimLeft(written, "-")) {
			return f
		}
	}
	return nil
}

// flagNames returns the flags that are not given yet.
func (l *line) flagNames() (list []candidate) {
	for _, f := range l.flags {
		if name := f.Names()[0]; !slices.Contains(l.given, name) {
			list = append(list, candidate{"--" + name, usageOf(f)})
		}
	}
	return append(list, candidate{"--help", "show help"})
}

// next returns the commands, or the values of the argument, that may come next. Other
// names of commands come once the word has begun.
func (l *line) next(first bool) (list []candidate) {
	for _, c := range l.commands {
		if c.Hidden {
			continue
		}
		for i, name := range c.Names() {
			if i == 0 || !first {
				list = append(list, candidate{name, c.Usage})
			}
		}
	}
	if l.command != nil {
		list = append(list, argumentOf(l.command.ArgsUsage, l.words)...)
	}
	return list
}

// argumentOf returns the values of a command's argument, as its usage describes them:
// "bash|zsh|fish" has three, and FILE all names of files.
func argumentOf(usage string, i int) (list []candidate) {
	described := strings.Fields(usage)
	if i >= len(described) {
		return nil
	}
	for _, word := range strings.Split(strings.Trim(described[i], "[]…"), "|") {
		switch {
		case word == "FILE":
			list = append(list, files)
		case word == strings.ToLower(word) && word != "-":
			list = append(list, candidate{word: word})
		}
	}
	return list
}

// valuesOf returns the values of a flag.
func valuesOf(f cli.Flag) (list []candidate) {
	if _, isBool := f.(*cli.BoolFlag); isBool {
		return []candidate{{word: "true"}, {word: "false"}}
	}
	for _, value := range choices[f.Names()[0]] {
		list = append(list, candidate{word: value})
	}
	if d, ok := f.(cli.DocGenerationFlag); ok {
		if m := placeholder.FindStringSubmatch(d.GetUsage()); m != nil && (m[1] == "FILE" || m[1] == "PATH") {
			list = append(list, files)
		}
	}
	return list
}

// placeholder matches what stands for a flag's value in its usage.
var placeholder = regexp.MustCompile("`([^`]+)`")

// usageOf returns a flag's usage in one line.
func usageOf(f cli.Flag) string {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return ""
	}
	return strings.ReplaceAll(d.GetUsage(), "`", "")
}

// matching returns the candidates that begin with a text.
func matching(begin string, list []candidate) (out []candidate) {
	for _, c := range list {
		if c == files || strings.HasPrefix(c.word, begin) {
			out = append(out, c)
		}
	}
	return out
}
