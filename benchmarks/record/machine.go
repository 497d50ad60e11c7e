package record

import (
	"bufio"
	"bytes"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
)

// Machine describes the machine of a measurement. Fields that the machine does not report
// are empty.
type Machine struct {
	CPU       string `json:"cpu"`
	Cores     int    `json:"cores"`
	Memory    int64  `json:"memory_bytes"`
	OS        string `json:"os"`
	Kernel    string `json:"kernel"`
	HugePages string `json:"transparent_huge_pages"`
	// Load is the load average of the minute before. It shows what else was running.
	Load float64 `json:"load_before"`
}

// ThisMachine describes the machine that it runs on.
func ThisMachine() Machine {
	m := Machine{
		CPU:    field("/proc/cpuinfo", "model name", ":"),
		Cores:  runtime.NumCPU(),
		OS:     strings.Trim(field("/etc/os-release", "PRETTY_NAME", "="), `"`),
		Kernel: runtime.GOOS + " " + line("/proc/sys/kernel/osrelease"),
	}
	if m.OS == "" {
		m.OS = runtime.GOOS
	}
	kib, _ := strconv.ParseInt(strings.TrimSuffix(field("/proc/meminfo", "MemTotal", ":"), " kB"), 10, 64)
	m.Memory = kib << 10
	if _, chosen, ok := strings.Cut(line("/sys/kernel/mm/transparent_hugepage/enabled"), "["); ok {
		m.HugePages, _, _ = strings.Cut(chosen, "]")
	}
	first, _, _ := strings.Cut(line("/proc/loadavg"), " ")
	m.Load, _ = strconv.ParseFloat(first, 64)
	return m
}

func line(path string) string {
	b, _ := os.ReadFile(path)
	first, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(first)
}

// field returns the text after a name and a separator, from the first such line of a
// file.
func field(path, name, separator string) string {
	b, _ := os.ReadFile(path)
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if key, value, ok := strings.Cut(s.Text(), separator); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// Commit returns the commit that is checked out, with a "+" if the product's code differs
// from it.
func Commit() string {
	id, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	commit := string(bytes.TrimSpace(id))
	changed, err := exec.Command("git", "status", "--porcelain", "--untracked-files=no", "--", ":(top)*.go", ":(top)go.mod", ":(top,exclude)benchmarks").Output()
	if err != nil || len(changed) > 0 {
		commit += "+"
	}
	return commit
}

// compared are the libraries whose versions influence the figures.
var compared = []string{
	"github.com/dgraph-io/ristretto/v2",
	"github.com/maypok86/otter/v2",
	"github.com/hashicorp/golang-lru/v2",
	"github.com/HdrHistogram/hdrhistogram-go",
	"github.com/groupcache/groupcache-go/v3",
	"github.com/buraksezer/olric",
	"github.com/redis/rueidis",
	"github.com/redis/go-redis/v9",
	"github.com/bradfitz/gomemcache",
}

// major is the end of a module's path that names its major version.
var major = regexp.MustCompile(`/v[0-9]+$`)

// Libraries returns the versions of Go and of the compared libraries in this program.
func Libraries() map[string]string {
	versions := map[string]string{"go": strings.TrimPrefix(runtime.Version(), "go")}
	if info, ok := debug.ReadBuildInfo(); ok {
		maps.Copy(versions, LibrariesOf(info))
	}
	return versions
}

// LibrariesOf returns the versions of the compared libraries in a program.
func LibrariesOf(info *debug.BuildInfo) map[string]string {
	versions := map[string]string{}
	for _, d := range info.Deps {
		if slices.Contains(compared, d.Path) {
			name := major.ReplaceAllString(d.Path, "")
			versions[name[strings.LastIndexByte(name, '/')+1:]] = d.Version
		}
	}
	return versions
}
