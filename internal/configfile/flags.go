package configfile

import (
	"cmp"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"
)

// DefaultHTTP is the default of http, if the sidecar is not embedded.
const DefaultHTTP = "127.0.0.1:7948"

// flagHelp is the help for a flag.
type flagHelp struct {
	usage string
	def   string // the default, if the help does not say it otherwise
}

// settingFlags are the flags of run that give a setting, with the name of the setting in
// a file.
var settingFlags = map[string]flagHelp{
	"node": {"this sidecar's `NAME`, unique in the cluster (default: the host name)", ""},
	"socket": {"listen on `PATH` (default: in the first folder that can be written of /run/cachesidecar, " +
		"$XDG_RUNTIME_DIR/cachesidecar, /tmp/cachesidecar-$UID)", ""},
	"socket_mode":  {"the socket's file `MODE`, octal", "0660"},
	"socket_group": {"the socket's `GROUP`", ""},
	"admin_group": {"the `GROUP` that administers the sidecar through the socket, beside root and its own " +
		"user", ""},
	"memcached": {"serve clients of memcached's protocol on `ADDRESS`, a path or a loopback HOST:PORT",
		"off"},
	"memcached_namespace": {"the `NAMESPACE` of these clients' keys, which their flush_all drops", "default"},
	"memcached_delimiter": {"the `CHARACTER` after a configured namespace's name in front of such a key, as in " +
		"pages:42", "none"},
	"l1_size":     {"`BYTES` for copies of what other hosts own", "64MiB"},
	"l2_size":     {"`BYTES` for this host's share of the keys", "256MiB"},
	"shared_size": {"`BYTES` that apps read hot values from without asking, or \"off\"", "l2-size/8, 1MiB to 32MiB"},
	"keep_memory": {"keep the entries over a restart, as a unit of systemd with FileDescriptorStoreMax=1", ""},
	"max_value":   {"the longest value, in `BYTES`", "8MiB, or l2-size/16 if that is less"},
	"buffer_size": {"`BYTES` for requests and answers under way",
		"128MiB, or four times the longest request if that is more"},
	"max_namespaces":  {"at most `N` namespaces", "256"},
	"max_connections": {"at most `N` connections", "16384"},
	"request_timeout": {"`TIME` for requests that bring none", "1s"},
	"bind":            {"gossip with other hosts on `HOST:PORT`, or \"off\"", "off, or 127.0.0.1:7946 with --join"},
	"peer_bind":       {"serve other hosts on `HOST:PORT`", "the host of bind, and the next port"},
	"advertise":       {"the `IP` address under which other hosts reach this one", "the address of bind"},
	"join":            {"look for other hosts at `HOST:PORT,…`, the same ones on all hosts", ""},
	"cluster":         {"the cluster's `NAME`", "cachesidecar"},
	"partition_policy": {"what a side of a split network does: \"available\" goes on, \"consistent\" serves only " +
		"with a majority of --voters; `POLICY` is the same on all hosts", "available"},
	"voters": {"the `NAME,…` of 3 or 5 nodes under --partition-policy consistent, the same ones on all hosts", ""},
	"cluster_key_file": {"encrypt what passes between hosts with the keys in `FILE`, the same one on all hosts (see " +
		"\"key generate\")", ""},
	"tls.cert": {"show other hosts the certificate in `FILE` (PEM), which names --node, instead of a certificate " +
		"made from the cluster key", ""},
	"tls.key": {"its private key's `FILE`", ""},
	"tls.ca":  {"accept other hosts whose certificates an authority in `FILE` has signed", ""},
	"insecure": {"allow addresses other than loopback without --cluster-key-file, although nothing between hosts is " +
		"encrypted", ""},
	"alone_ok":        {"be ready although other hosts should be there and none answers", ""},
	"adaptive_weight": {"lower the weight while this host is under pressure", ""},
	"weight":          {"this host's share of the keys, a `NUMBER` relative to other hosts", "l2-size in MiB"},
	"max_staleness":   {"how far behind a copy may be, a `TIME` that is the same on all hosts", "2s"},
	"leave_time":      {"at the end, wait for a `TIME` at most until other hosts have this one's entries", "10s"},
	"max_clock_skew":  {"how far another host's clock may differ, a `TIME`", "500ms"},
	"http":            {"serve health, metrics and a page on `HOST:PORT`, or \"off\"", DefaultHTTP},
	"http_hosts": {"`NAME,…` under which --http may be asked, beside this host's own, localhost and IP " +
		"addresses", ""},
	"http_token_file":     {"a file `PATH` with the token that all pages but health need", "none"},
	"pprof":               {"serve /debug/pprof on --http too", ""},
	"ignore_memory_limit": {"start even where the sizes exceed the machine's memory", ""},
	"log_format":          {"log as `FORMAT`, text or json", "text on a terminal, else json"},
	"log_level":           {"log from `LEVEL` on: debug, info, warn or error", "info"},
}

// EnvName returns the environment variable of a flag.
func EnvName(flag string) string {
	return "CACHESIDECAR_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// EnvVars returns the environment variables of a flag. An empty variable counts as not set;
// otherwise cli would let it override the file.
func EnvVars(flag string) []string {
	if v, ok := os.LookupEnv(EnvName(flag)); ok && v == "" {
		return nil
	}
	return []string{EnvName(flag)}
}

// flag returns the name of the setting's flag.
func (set setting) flag() string { return strings.NewReplacer("_", "-", ".", "-").Replace(set.key) }

// flagSettings returns the settings of a configuration that have flags, in their order, with keys such as
// tls.cert. Maps, such as namespaces, can be given in a file only.
func flagSettings(v reflect.Value, before string) (list []setting) {
	for _, s := range settingsIn(v) {
		switch s.key = before + s.key; s.value.Kind() {
		case reflect.Map:
		case reflect.Struct:
			list = append(list, flagSettings(s.value, s.key+".")...)
		default:
			list = append(list, s)
		}
	}
	return list
}

// Flags returns the flags of run: the file, and one for each setting of it.
func Flags() []cli.Flag {
	list := []cli.Flag{&cli.StringFlag{
		Name: "config", Usage: "read settings from `FILE` (YAML)", TakesFile: true, EnvVars: EnvVars("config"),
	}}
	for _, s := range flagSettings(reflect.ValueOf(new(File)).Elem(), "") {
		name, help := s.flag(), settingFlags[s.key]
		usage, def, vars := help.usage, help.def, EnvVars(name)
		switch s.value.Interface().(type) {
		case bool:
			list = append(list, &cli.BoolFlag{Name: name, Usage: usage, DisableDefaultText: true, EnvVars: vars})
		case []string:
			list = append(list, &cli.StringSliceFlag{Name: name, Usage: usage, EnvVars: vars})
		default: // what a file has as one word
			f := &cli.StringFlag{Name: name, Usage: usage, DefaultText: def, EnvVars: vars}
			f.TakesFile = strings.Contains(usage, "`FILE`") || strings.Contains(usage, "`PATH`")
			list = append(list, f)
		}
	}
	return list
}

// Merge merges the file, the environment and the flags. It may be called any number of
// times, and reads the file each time. The error is that the file cannot be read.
func Merge(c *cli.Context) (cfg File, err error) {
	cfg = newFile()
	if path := c.String("config"); path != "" {
		if cfg, err = Load(path); err != nil {
			return cfg, err
		}
	}
	cfg.sources.given = map[string]string{}
	onLine := namesOnLine(c)
	for _, s := range flagSettings(reflect.ValueOf(&cfg).Elem(), "") {
		if !c.IsSet(s.flag()) {
			continue
		}
		given := "$" + EnvName(s.flag())
		if slices.Contains(onLine, s.flag()) {
			given = "--" + s.flag()
		}
		if err := s.takeValue(c); err != nil {
			cfg.Wrong = append(cfg.Wrong, Problem{Setting: s.key, Text: err.Error(), given: given})
		} else {
			cfg.sources.given[s.key] = given
		}
	}
	cfg.HTTP = cmp.Or(cfg.HTTP, DefaultHTTP)
	return cfg, nil
}

// namesOnLine returns the names of the flags that the command line gives. Without a
// command, the library names no flags that the environment gives.
func namesOnLine(c *cli.Context) []string {
	line := *c
	line.Command = nil
	return line.LocalFlagNames()
}

// takeValue sets the setting to the value that its flag or environment variable gives.
func (set setting) takeValue(c *cli.Context) error {
	name := set.flag()
	switch v := set.value.Addr().Interface().(type) {
	case *bool:
		*v = c.Bool(name)
	case *[]string:
		*v = c.StringSlice(name)
	case *string:
		*v = c.String(name)
	default: // as in a file
		read := checker{seen: map[visit]bool{}}
		text := &yaml.Node{Kind: yaml.ScalarNode, Value: c.String(name)}
		if text.ShortTag() == "!!null" { // which would be the default
			text.Style = yaml.DoubleQuotedStyle
		}
		read.value(&text, field{name: set.key, typ: set.value.Type()})
		if len(read.mistakes) > 0 {
			return errors.New(read.mistakes[0].Text)
		}
		return text.Decode(v)
	}
	return nil
}
