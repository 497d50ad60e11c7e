package packages

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/checks/sidecars"
)

// machine is a systemd in namespaces of its own.
type machine struct {
	t   *testing.T
	pid string // of systemd, outside
}

// boot starts a systemd. It ends with the test.
func boot(t *testing.T, shared string) *machine {
	t.Helper()
	for _, file := range []string{"/lib/systemd/systemd", "/usr/bin/systemd-analyze"} {
		if _, err := os.Stat(file); err != nil {
			sidecars.Needs(t, "there is no systemd: install the Debian package systemd")
		}
	}
	if os.Getuid() != 0 {
		sidecars.Needs(t, "only root can boot a systemd: run the test as root")
	}
	script, err := filepath.Abs("boot.sh")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--cgroup", "bash", script, t.TempDir(), shared)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("systemd: %s", &out)
		}
	})
	m := &machine{t: t}
	sidecars.Until(t, "systemd has booted", func() bool {
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
		m.pid = strings.TrimSpace(string(children))
		if comm, _ := os.ReadFile("/proc/" + m.pid + "/comm"); strings.TrimSpace(string(comm)) != "systemd" {
			return false
		}
		out, _ := m.try("systemctl", "is-active", "checks.target")
		return out == "active\n"
	})
	return m
}

// try runs a command in the machine, and returns what it prints.
func (m *machine) try(args ...string) (string, error) {
	in := []string{"--target", m.pid, "--all", "--root=/proc/" + m.pid + "/root", "--wd=/proc/" + m.pid + "/root"}
	out, err := exec.Command("nsenter", append(in, args...)...).CombinedOutput()
	return string(out), err
}

// run does too. The command must succeed.
func (m *machine) run(args ...string) string {
	m.t.Helper()
	out, err := m.try(args...)
	if err != nil {
		journal, _ := m.try("journalctl", "--no-pager", "-n", "60")
		m.t.Fatalf("%q: %v\n%s\n%s", args, err, out, journal)
	}
	return out
}

// as runs a cachesidecar command as an app of the machine.
func (m *machine) as(user string, args ...string) (string, error) {
	return m.try(append([]string{"runuser", "-u", user, "--", "cachesidecar"}, args...)...)
}

// write writes a file in the machine.
func (m *machine) write(path, text string) {
	m.t.Helper()
	if err := os.WriteFile("/proc/"+m.pid+"/root"+path, []byte(text), 0o640); err != nil {
		m.t.Fatal(err)
	}
}

// mainPID returns the process of the sidecar, as the machine numbers it.
func (m *machine) mainPID() string {
	return strings.TrimSpace(m.run("systemctl", "show", "-P", "MainPID", "cachesidecar"))
}

// TestDebianPackage installs the package under a real systemd and uses it as its users do.
func TestDebianPackage(t *testing.T) {
	for _, tool := range []string{"dpkg-deb", "unshare", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			sidecars.Needs(t, "there is no "+tool+": install the Debian packages dpkg and util-linux")
		}
	}
	shared := pack(t, "deb")
	m := boot(t, shared)
	m.tour()
	if out := m.run("systemctl", "is-enabled", "cachesidecar.service", "cachesidecar.socket"); out != "enabled\nenabled\n" {
		t.Errorf("enabled: %q", out)
	}
	m.run("systemctl", "is-active", "cachesidecar.service")
	m.run("useradd", "stranger")

	// An app of the group is served, and no other user.
	if out, err := m.as("app", "set", "greeting", "hello"); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if out, err := m.as("app", "get", "greeting"); err != nil || out != "hello" {
		t.Errorf("%v %q", err, out)
	}
	if out, err := m.as("stranger", "get", "greeting"); err == nil || !strings.Contains(out, "permission denied") {
		t.Errorf("a user who is not in the group: %v %q", err, out)
	}
	if out, err := m.as("stranger", "get", "greeting"); err == nil || strings.Contains(out, "hello") {
		t.Errorf("%v %q", err, out)
	}
	if _, err := m.try("runuser", "-u", "stranger", "--", "cat", "/etc/cachesidecar/config.yaml"); err == nil {
		t.Error("any user may read the configuration")
	}
	m.reloads()
	m.restarts()
	m.watched()
	m.remade()

	// The sandbox that systemd has really applied.
	exposure := m.run("systemd-analyze", "security", "--no-pager", "cachesidecar.service")
	if got := regexp.MustCompile(`exposure level for cachesidecar.service: ([0-9.]+)`).FindStringSubmatch(exposure); got == nil {
		t.Errorf("no level in\n%s", exposure)
	} else if level, _ := strconv.ParseFloat(got[1], 64); level > 1.4 {
		t.Errorf("the exposure level is %v, want 1.4 or less:\n%s", level, exposure)
	}

	// Removing keeps the configuration; a purge leaves nothing.
	m.run("dpkg", "--remove", "cachesidecar")
	m.run("test", "-e", "/etc/cachesidecar/config.yaml")
	m.run("dpkg", "--purge", "cachesidecar")
	left := m.run("sh", "-c", "ls -d /etc/cachesidecar /run/cachesidecar /usr/bin/cachesidecar "+
		"/etc/systemd/system/cachesidecar* /etc/systemd/system/*/cachesidecar* 2>/dev/null || true")
	if left != "" {
		t.Errorf("after a purge there is %s", left)
	}
}

// tour runs each line of the page's section about the package, from an empty machine to the
// first hit, and compares what it prints with the page.
func (m *machine) tour() {
	m.t.Helper()
	page, err := os.ReadFile("../../deploy/README.md")
	if err != nil {
		m.t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "## The Debian package\n")
	section, _, _ = strings.Cut(section, "\n## ")
	lines := 0
	for _, block := range regexp.MustCompile("(?s)```console\n(.*?)```").FindAllStringSubmatch(section, -1) {
		for _, step := range strings.Split("\n"+block[1], "\n# ")[1:] {
			command, want, _ := strings.Cut(step, "\n")
			out := m.run("sh", "-c", strings.ReplaceAll(command, "dist/", "/mnt/"))
			if want = strings.TrimSpace(want); want != "" && strings.TrimSpace(out) != want {
				m.t.Errorf("%s: got %q, want %q", command, out, want)
			}
			lines++
		}
	}
	if lines < 9 {
		m.t.Errorf("the page has %d lines to run", lines)
	}
}

// reloads: a right configuration is in effect after "systemctl reload", a wrong one makes it
// fail and changes nothing.
func (m *machine) reloads() {
	m.t.Helper()
	pid := m.mainPID()
	m.write("/etc/cachesidecar/config.yaml", "namespaces: {pages: {default_ttl: 5m}}\n")
	m.run("systemctl", "reload", "cachesidecar")
	m.write("/etc/cachesidecar/config.yaml", "namespaces: {pages: {default_tll: 5m}}\n")
	if out, err := m.try("systemctl", "reload", "cachesidecar"); err == nil {
		m.t.Errorf("a wrong configuration is accepted: %s", out)
	}
	if out := m.run("journalctl", "--no-pager", "-u", "cachesidecar"); !strings.Contains(out, "default_tll") {
		m.t.Errorf("the journal does not name what is wrong:\n%s", out)
	}
	if now := m.mainPID(); now != pid {
		m.t.Errorf("a reload has made process %s of %s", now, pid)
	}
	m.write("/etc/cachesidecar/config.yaml", "{}\n")
	m.run("systemctl", "reload", "cachesidecar")
}

// restarts: while the sidecar is restarted apps wait, and none fails.
func (m *machine) restarts() {
	m.t.Helper()
	done := make(chan string)
	go func() { // ends below
		out, err := m.try("runuser", "-u", "app", "--", "sh", "-c",
			"for i in $(seq 200); do cachesidecar set k v || exit 1; done")
		done <- fmt.Sprint(out, err)
	}()
	pid := m.mainPID()
	for range 3 {
		m.run("systemctl", "restart", "cachesidecar")
	}
	if now := m.mainPID(); now == pid {
		m.t.Errorf("still process %s", pid)
	}
	if got := <-done; got != "<nil>" {
		m.t.Errorf("an app during restarts: %s", got)
	}
}

// watched: a sidecar that hangs is ended, and started again.
func (m *machine) watched() {
	m.t.Helper()
	m.run("mkdir", "-p", "/run/systemd/system/cachesidecar.service.d")
	m.write("/run/systemd/system/cachesidecar.service.d/quick.conf", "[Service]\nWatchdogSec=3\n")
	m.run("systemctl", "daemon-reload")
	m.run("systemctl", "restart", "cachesidecar")
	pid := m.mainPID()
	time.Sleep(7 * time.Second) // longer than two watchdogs: one that works is left alone
	if now := m.mainPID(); now != pid {
		m.t.Errorf("a sidecar that works was ended by the watchdog: process %s is now %s", pid, now)
	}
	m.run("kill", "-STOP", pid)
	sidecars.Until(m.t, "the watchdog starts another process", func() bool {
		out, _ := m.try("systemctl", "is-active", "cachesidecar")
		return out == "active\n" && m.mainPID() != pid
	})
	if out := m.run("journalctl", "--no-pager", "-u", "cachesidecar"); !strings.Contains(out, "Watchdog timeout") {
		m.t.Errorf("the journal has no timeout of the watchdog:\n%s", out)
	}
}

// remade: without its folder the socket is made again at the next start.
func (m *machine) remade() {
	m.t.Helper()
	m.run("systemctl", "stop", "cachesidecar.service", "cachesidecar.socket")
	m.run("rm", "-rf", "/run/cachesidecar")
	m.run("systemctl", "start", "cachesidecar.service")
	if out, err := m.as("app", "set", "k", "v"); err != nil {
		m.t.Errorf("after the folder of the socket was removed: %v %s", err, out)
	}
}

// TestUnits has systemd look at the units as they are in the repository.
func TestUnits(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		sidecars.Needs(t, "there is no systemd-analyze: install the Debian package systemd")
	}
	dir := t.TempDir()
	for _, name := range []string{"cachesidecar.service", "cachesidecar.socket"} {
		b, err := os.ReadFile("../../deploy/systemd/" + name)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(b), "/usr/bin/cachesidecar", sidecars.Command(t)) // it need not be installed
		text = regexp.MustCompile(`(?m)^Documentation=.*\n`).ReplaceAllString(text, "")     // nor its manual
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("systemd-analyze", "verify", filepath.Join(dir, "cachesidecar.service"), filepath.Join(dir, "cachesidecar.socket")).CombinedOutput()
	if err != nil || strings.Contains(string(out), "cachesidecar") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
