package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"

	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/internal/table"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// loadConfig reads a file. The error is that this cannot be done.
func loadConfig(path string) (fileConfig, error) {
	b, err := settings.ReadFile(path, maxConfig)
	if err != nil {
		return fileConfig{}, fmt.Errorf("config %s: %w: give the path of a file of settings that this process may read",
			path, err)
	}
	cfg := parseConfig(b)
	cfg.sources.file = path
	for i := range cfg.wrong {
		cfg.wrong[i].File = path
	}
	return cfg, nil
}

// logOptions returns the options of the log. Default: text on a terminal, JSON elsewhere.
// What is wrong counts as left out; the error joins it.
func (c fileConfig) logOptions(terminal bool) (o logs.Options, err error) {
	var wrong settings.Problems
	if c.LogLevel != "" && o.Level.UnmarshalText([]byte(c.LogLevel)) != nil {
		wrong.Addf("log_level %q: give debug, info, warn or error", c.LogLevel)
	}
	switch c.LogFormat {
	case "text":
		o.Text = true
	case "json":
	default:
		wrong.Addf("log_format %q: give text or json", c.LogFormat)
		fallthrough
	case "":
		o.Text = terminal
	}
	return o, wrong.Err()
}

// takeOn changes root's process to another user, with that user's groups, permanently.
func takeOn(uid int) error {
	gid, groups := uid, []int(nil)
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		if gid, err = strconv.Atoi(u.Gid); err != nil {
			return err
		}
		ids, err := u.GroupIds()
		if err != nil {
			return err
		}
		for _, id := range ids {
			n, err := strconv.Atoi(id)
			if err != nil {
				return err
			}
			groups = append(groups, n)
		}
	}
	if err := errors.Join(syscall.Setgroups(groups), syscall.Setgid(gid), syscall.Setuid(uid)); err != nil {
		return fmt.Errorf("become uid %d: %w", uid, err)
	}
	return nil
}

func configCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "look at a configuration",
		Subcommands: []*cli.Command{{
			Name:      "check",
			Usage:     "say whether a configuration file is right",
			ArgsUsage: "FILE",
			Description: "Prints \"ok\", or all that is wrong and where. Exit status 1 if the file is not right. " +
				"Run by root it checks as the user whose files with secrets the configuration names.",
			Flags: []cli.Flag{
				boolFlag("ask-origins", "ask each origin once, too"),
				timeoutFlag("wait this `TIME` for the origins", 10*time.Second),
				jsonFlag,
			},
			Action: withArgs(1, 1, p.check),
		}, {
			Name:  "show",
			Usage: "print the settings that \"run\" would have, and where each comes from",
			Description: "Takes the flags and the environment of \"run\". It asks no sidecar. The output is a " +
				"configuration file. Its last line is how much memory the process needs. Exit status 1 if something " +
				"is wrong.",
			Flags:  append(runFlags(), boolFlag("changed", "leave out what has its default"), jsonFlag),
			Action: withArgs(0, 0, p.showConfig),
		}},
	}
}

// checkConfig reads a configuration file, and returns all that is wrong with it, as this
// process's user sees it. The error is of type problems, if the file can be read.
func checkConfig(path string) (fileConfig, error) {
	cfg, err := loadConfig(path)
	if err == nil {
		err = cfg.check().orNil()
	}
	return cfg, err
}

func (p *program) check(c *cli.Context) error {
	path := c.Args().First()
	cfg, err := checkConfig(path)
	var foreign settings.Foreign
	if errors.As(err, &foreign) && os.Geteuid() == 0 {
		if err := takeOn(foreign.UID); err != nil {
			return err
		}
		fmt.Fprintf(p.err, "Checked as uid %d, to which a file with a secret belongs: run the sidecar as that user.\n",
			foreign.UID)
		cfg, err = checkConfig(path)
	}
	p.warnUnknown(&cfg)
	if err == nil && c.Bool("ask-origins") {
		err = p.askOrigins(c, &cfg)
	}
	var wrong problems
	if err != nil && !(errors.As(err, &wrong) && c.Bool("json")) {
		return err
	}
	err = p.show(c, append(problems{}, wrong...), "ok\n")
	if err == nil && wrong != nil {
		return errStatus1
	}
	return err
}

// askOrigins asks all origins, and prints a line for each one that answers, unless --json
// is given. The error lists those that do not.
func (p *program) askOrigins(c *cli.Context, cfg *fileConfig) error {
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	defer cancel()
	answers, err := cfg.AskOrigins(ctx)
	if err != nil {
		return err
	}
	feeds, err := cfg.AskFeeds(ctx)
	if err = cmp.Or(c.Context.Err(), err); err != nil {
		return err
	}
	var wrong problems
	var good table.Rows
	for _, a := range answers {
		if a.Unasked && a.Err == nil {
			good.AddRow(a.Namespace, a.Kind, "not asked: its key_pattern lets no key pass that can be invented")
			continue
		}
		if a.Err == nil {
			good.AddRow(a.Namespace, a.Kind, "ok", a.Took.Round(10*time.Microsecond))
			continue
		}
		text := a.Err.Error()
		if errors.Is(a.Err, context.DeadlineExceeded) {
			text = "no answer within the timeout: " + text
		}
		wrong = append(wrong, cfg.sources.problem("namespaces."+a.Namespace+".origin."+a.Kind,
			fmt.Sprintf("namespace %s: origin.%s: %s", a.Namespace, a.Kind, text)))
	}
	for _, a := range feeds {
		if a.Err == nil {
			good.AddRow("changes "+a.Feed, a.Kind, "ok")
		}
		for _, err := range settings.Each(a.Err) {
			wrong = append(wrong, cfg.sources.problem("changes."+a.Feed+"."+a.Kind,
				fmt.Sprintf("changes %s: %v", a.Feed, err)))
		}
		for _, w := range a.Warnings {
			fmt.Fprintf(p.err, "changes %s: %s\n", logs.Plain(a.Feed), logs.Plain(w))
		}
	}
	wrong.sort()
	if c.Bool("json") {
		return wrong.orNil()
	}
	_, err = fmt.Fprint(p.out, good)
	return errors.Join(err, wrong.orNil())
}

func (p *program) showConfig(c *cli.Context) error {
	cfg, err := runConfig(c)
	if err != nil {
		return err
	}
	p.warnUnknown(&cfg)
	list, err := cfg.effective(isTerminal(os.Stderr))
	if c.Bool("changed") {
		list = slices.DeleteFunc(list, func(s shownSetting) bool { return s.Source == "default" })
	}
	need, _ := cfg.Memory() // what is wrong is in the list
	text := yamlOf(list) + fmt.Sprintf("# Such a process needs %d MiB of memory at most: MemoryMax=, or a container's "+
		"limit.\n", (need+1<<20-1)>>20)
	if err := p.show(c, list, text); err != nil {
		return err
	}
	return cfg.sources.join(cfg.wrong, err).orNil()
}

// shownSetting is a setting with its effective value.
type shownSetting struct {
	Setting string `json:"setting"`
	Value   any    `json:"value"`
	Source  string `json:"source"`

	path []string
}

// effective returns the settings that a sidecar would have, in the order of the file. The
// error joins what is wrong with them.
func (c fileConfig) effective(terminal bool) (list []shownSetting, err error) {
	o, e := c.logOptions(terminal)
	c.LogLevel, c.LogFormat = strings.ToLower(o.Level.Level().String()), "json"
	if o.Text {
		c.LogFormat = "text"
	}
	c.Config, err = c.Effective()
	inFile := map[string]fileNamespace{}
	for name, ns := range c.Namespaces {
		inFile[name] = fileNamespace{ns, c.InFile[name].Origin}
	}
	c.InFile = inFile
	return c.sources.shown(nil, reflect.ValueOf(c)), errors.Join(e, err)
}

// shown returns the settings in a value, those that have a value themselves. Those of the sidecar itself are in the
// list in any case.
func (s *sources) shown(path []string, v reflect.Value) (list []shownSetting) {
	switch v.Kind() {
	case reflect.Struct:
		for _, f := range settingsIn(v) {
			if len(path) == 0 || !f.value.IsZero() {
				list = append(list, s.shown(append(slices.Clip(path), f.key), reflect.Indirect(f.value))...)
			}
		}
		return list
	case reflect.Map:
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, key := range keys {
			list = append(list, s.shown(append(slices.Clip(path), key.String()), v.MapIndex(key))...)
		}
		return list
	}
	key, value := strings.Join(path, "."), plainValue(v)
	one := shownSetting{Setting: key, Value: masked(path, value), Source: s.of(key), path: path}
	if !reflect.DeepEqual(value, one.Value) {
		one.Source += ", a secret is hidden"
	}
	return []shownSetting{one}
}

// plainValue returns a value as JSON has it: times and sizes are texts that a file may have.
func plainValue(v reflect.Value) any {
	switch x := v.Interface().(type) {
	case time.Duration:
		return settings.TimeText(x)
	case sidecar.Size:
		return x.Text()
	case fmt.Stringer:
		return x.String()
	case []string:
		return append([]string{}, x...)
	}
	if v.Kind() == reflect.String {
		return v.String()
	}
	return v.Interface()
}

// masked returns the value of a setting without secrets.
func masked(path []string, value any) any {
	name, of := path[len(path)-1], ""
	if len(path) > 1 {
		of = path[len(path)-2]
	}
	switch v := value.(type) {
	case string:
		return settings.Masked(of, name, v)
	case []string:
		return settings.MaskedList(name, v)
	}
	return value
}

// yamlOf returns settings as a configuration file, each with its source behind it.
func yamlOf(list []shownSetting) string {
	var text strings.Builder
	var before []string
	for _, s := range list {
		same := 0
		for same < len(s.path)-1 && same < len(before)-1 && s.path[same] == before[same] {
			same++
		}
		for ; same < len(s.path); same++ {
			text.WriteString(strings.Repeat("  ", same) + scalar(s.path[same]) + ":")
			if same < len(s.path)-1 {
				text.WriteString("\n")
			}
		}
		fmt.Fprintf(&text, " %s # %s\n", scalar(s.Value), logs.Plain(s.Source))
		before = s.path
	}
	return text.String()
}

// scalar returns a value on one line, as YAML has it.
func scalar(value any) string {
	if text, ok := value.(string); ok {
		if b, err := yaml.Marshal(text); err == nil && bytes.Count(b, []byte("\n")) == 1 && logs.Plain(text) == text {
			return strings.TrimSuffix(string(b), "\n")
		}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(value) // texts, numbers and lists of them
	return escaped(strings.TrimSuffix(b.String(), "\n"))
}

// escaped writes what cannot be printed as YAML's escapes. It differs from JSON's for high
// characters: YAML knows no pairs of surrogates.
func escaped(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
