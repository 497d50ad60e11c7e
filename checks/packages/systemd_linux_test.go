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
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
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
			testenv.Needs(t, "there is no systemd: install the Debian package systemd")
		}
	}
	if os.Getuid() != 0 {
		testenv.Needs(t, "only root can boot a systemd: run the test as root")
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
	testenv.Eventually(t, "systemd has booted", func() bool {
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
	cmd := exec.Command("nsenter", append(in, args...)...)
	cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin") // what the package has installed, and no other
	out, err := cmd.CombinedOutput()
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

// TestLengthyDebianPackage installs the package under a real systemd and uses it as its users do.
func TestLengthyDebianPackage(t *testing.T) {
	testenv.Takes(t, time.Minute)
	for _, tool := range []string{"dpkg-deb", "unshare", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			testenv.Needs(t, "there is no "+tool+": install the Debian packages dpkg and util-linux")
		}
	}
	shared := pack(t, "deb")
	packAs(t, filepath.Join(shared, "other"), "v9.8.6", "deb")
	m := boot(t, shared)
	m.tour("The Debian package", 15, "")
	m.keepsMemcached()
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
	if out, err := m.as("stranger", "get", "greeting"); err == nil || !strings.Contains(out, "permission denied: the socket belongs to group "+
		"cachesidecar-apps and has mode 0660, and user stranger is not in it: usermod -aG cachesidecar-apps stranger, ") || strings.Contains(out, "cachesidecar run") {
		t.Errorf("a user who is not in the group: %v %q", err, out)
	}
	if out, err := m.as("stranger", "get", "greeting"); err == nil || strings.Contains(out, "hello") {
		t.Errorf("%v %q", err, out)
	}
	for _, user := range []string{"stranger", "app"} {
		if _, err := m.try("runuser", "-u", user, "--", "cat", "/etc/cachesidecar/config.yaml"); err == nil {
			t.Errorf("%s may read the configuration", user)
		}
	}
	m.reloads()
	m.restarts()
	m.keepsMemory(3)
	m.mended()
	m.upgrades()
	m.versions()
	m.watched()
	m.remade()

	// The sandbox that systemd has really applied.
	exposure := m.run("systemd-analyze", "security", "--no-pager", "cachesidecar.service")
	if got := regexp.MustCompile(`exposure level for cachesidecar.service: ([0-9.]+)`).FindStringSubmatch(exposure); got == nil {
		t.Errorf("no level in\n%s", exposure)
	} else if level, _ := strconv.ParseFloat(got[1], 64); level > 1.4 {
		t.Errorf("the exposure level is %v, want 1.4 or less:\n%s", level, exposure)
	}

	// Removing keeps the configuration; a purge leaves nothing but what is not of the package.
	m.run("dpkg", "--remove", "cachesidecar")
	m.run("test", "-e", "/etc/cachesidecar/config.yaml")
	m.run("sh", "-c", install)
	if out, err := m.as("app", "set", "k", "v"); err != nil {
		t.Errorf("removed and installed again: %v %s", err, out)
	}
	m.write("/etc/cachesidecar/cluster.key", "a secret")
	if out := m.run("dpkg", "--purge", "cachesidecar"); !strings.Contains(out, "/etc/cachesidecar stays") {
		t.Errorf("a purge does not say that a key stays: %s", out)
	}
	m.run("rm", "-r", "/etc/cachesidecar")
	left := m.run("sh", "-c", "ls -d /etc/cachesidecar /run/cachesidecar /usr/bin/cachesidecar "+
		"/etc/systemd/system/cachesidecar* /etc/systemd/system/*/cachesidecar* 2>/dev/null || true")
	if left != "" {
		t.Errorf("after a purge there is %s", left)
	}
}

// install installs the package again, as an upgrade does.
const install = "dpkg -i /mnt/cachesidecar_*.deb"

// TestLengthyArchiveUnits installs the archive under a real systemd, as the page says.
func TestLengthyArchiveUnits(t *testing.T) {
	testenv.Takes(t, time.Minute)
	shared := pack(t, "archive", "linux/amd64")
	run(t, "tar", "-C", shared, "-xzf", filepath.Join(shared, "cachesidecar-v9.8.7-linux-amd64.tar.gz"))
	m := boot(t, shared)
	m.tour("The archive", 10, "cd /mnt/cachesidecar-*-linux-amd64 && ")
	if out := m.run("stat", "-c", "%U %G %a", "/run/cachesidecar/cachesidecar.sock"); out != "cachesidecar cachesidecar-apps 660\n" {
		t.Errorf("the socket: %q", out)
	}
}

// TestLengthyDebianVersions checks how Debian orders the versions of what is built.
func TestLengthyDebianVersions(t *testing.T) {
	testenv.Takes(t, time.Minute)
	if _, err := exec.LookPath("dpkg"); err != nil {
		testenv.Needs(t, "there is no dpkg: install the Debian package dpkg")
	}
	before := ""
	for _, version := range []string{"v0.0.0-20261123-0123456789ab", "v1.2.0-rc.1", "v1.2.0-rc.1-3-gabcdef0", "v1.2.0-rc.2", "v1.2.0",
		"v1.2.0-5-gabcdef0", "v1.2.0-12-gabcdef0-dirty", "v1.2.1"} {
		cmd := exec.Command("../../deploy/package", "debversion")
		cmd.Env = append(os.Environ(), "OUT="+t.TempDir(), "VERSION="+version)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		now := strings.TrimSpace(string(out))
		if before != "" && exec.Command("dpkg", "--compare-versions", before, "lt", now).Run() != nil {
			t.Errorf("%s (%s) does not come after %s", now, version, before)
		}
		before = now
	}
}

// tour runs each line of a section of the page, from an empty machine to the first hit, and
// compares what it prints with the page.
func (m *machine) tour(name string, want int, before string) {
	m.t.Helper()
	page, err := os.ReadFile("../../deploy/README.md")
	if err != nil {
		m.t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "## "+name+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	lines := 0
	for _, block := range regexp.MustCompile("(?s)```console\n(.*?)```").FindAllStringSubmatch(section, -1) {
		for _, step := range strings.Split("\n"+block[1], "\n# ")[1:] {
			command, want, _ := strings.Cut(step, "\n")
			out := m.run("sh", "-c", before+strings.ReplaceAll(command, "dist/", "/mnt/"))
			if want = strings.TrimSpace(want); want != "" && strings.TrimSpace(out) != want {
				m.t.Errorf("%s: got %q, want %q", command, out, want)
			}
			lines++
		}
	}
	if lines < want {
		m.t.Errorf("the page has %d lines to run in %q, want %d", lines, name, want)
	}
}

// keepsMemcached: a client of memcached's protocol that connects while no sidecar runs is served by the
// next one, at the port that the page has set up, and at a path of a unit of its own. It takes both away again.
func (m *machine) keepsMemcached() {
	m.t.Helper()
	served := func(connect string) {
		m.t.Helper()
		pid := m.mainPID()
		m.run("systemctl", "stop", "cachesidecar.service")
		if out := m.run("timeout", "30", "perl", "-MIO::Socket", "-e", `my $s = `+connect+` or die "$!"; `+
			`print $s "set k 0 0 1\r\nv\r\n"; print scalar <$s>`); out != "STORED\r\n" || m.mainPID() == pid {
			m.t.Errorf("without a process %s answers %q, process %s was %s", connect, out, m.mainPID(), pid)
		}
	}
	served(`IO::Socket::INET->new("127.0.0.1:11211")`)
	const own = "/run/systemd/system/cachesidecar-memcached.socket"
	m.write(own, "[Socket]\nListenStream=/run/cachesidecar/memcached.sock\nSocketMode=0604\n"+
		"FileDescriptorName=memcached\nService=cachesidecar.service\n")
	m.write("/etc/cachesidecar/config.yaml", "memcached: /run/cachesidecar/memcached.sock\n")
	m.run("rm", "-r", "/etc/systemd/system/cachesidecar.socket.d")
	m.run("systemctl", "daemon-reload")
	m.run("systemctl", "stop", "cachesidecar.socket", "cachesidecar.service")
	m.run("systemctl", "start", "cachesidecar-memcached.socket", "cachesidecar.service")
	served(`IO::Socket::UNIX->new("/run/cachesidecar/memcached.sock")`)
	if out := m.run("stat", "-c", "%a", "/run/cachesidecar/memcached.sock"); out != "604\n" {
		m.t.Errorf("memcached's socket has mode %s", out)
	}
	m.run("systemctl", "stop", "cachesidecar.service", "cachesidecar-memcached.socket")
	m.run("rm", own, "/run/cachesidecar/memcached.sock")
	m.write("/etc/cachesidecar/config.yaml", "{}\n")
	m.run("systemctl", "daemon-reload")
	m.run("systemctl", "start", "cachesidecar.service")
}

// reloads: a right configuration is in effect after "systemctl reload", a wrong one makes it
// fail and changes nothing.
func (m *machine) reloads() {
	m.t.Helper()
	pid := m.mainPID()
	m.write("/etc/cachesidecar/config.yaml", "namespaces: {pages: {default_ttl: 5m}}\n")
	m.run("systemctl", "reload", "cachesidecar")
	m.run("cachesidecar", "set", "--ns", "pages", "k", "v")
	if out := m.run("cachesidecar", "ttl", "--ns", "pages", "k"); !strings.HasPrefix(out, "4m5") && !strings.HasPrefix(out, "5m") {
		m.t.Errorf("after a reload that sets a TTL of 5 min: %s", out)
	}
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
	enough := m.writes("restarts")
	pid := m.mainPID()
	for range 3 {
		m.run("systemctl", "restart", "cachesidecar")
	}
	if now := m.mainPID(); now == pid {
		m.t.Errorf("still process %s", pid)
	}
	enough()
}

// keepsMemory: with keep_memory entries are there after each restart, while an app writes, but not after
// SIGKILL, nor after a stop, when systemd gives the memory back.
func (m *machine) keepsMemory(restarts int) {
	m.t.Helper()
	m.write("/etc/cachesidecar/config.yaml", "keep_memory: true\n")
	m.run("systemctl", "restart", "cachesidecar")
	m.run("cachesidecar", "set", "kept", "v")
	fds := func() string {
		return strings.TrimSpace(m.run("systemctl", "show", "-P", "NFileDescriptorStore", "cachesidecar"))
	}
	enough := m.writes("restarts with kept memory")
	for i := range restarts {
		value := fmt.Sprint("value ", i)
		m.run("cachesidecar", "set", "last", value)
		m.run("systemctl", "restart", "cachesidecar")
		out, err := m.try("cachesidecar", "mget", "kept", "last")
		if stats := m.run("cachesidecar", "stats"); err != nil || !strings.Contains(out, value) || !strings.Contains(stats, "kept: ") {
			m.t.Errorf("restart %d: %s, %v\n%s", i, out, err, stats)
		}
	}
	enough()
	if got := fds(); got != "1" {
		m.t.Errorf("systemd keeps %s descriptors, want 1", got)
	}
	m.run("systemctl", "kill", "-s", "KILL", "cachesidecar")
	testenv.Eventually(m.t, "the next process to serve", func() bool {
		out, _ := m.try("cachesidecar", "stats")
		return strings.Contains(out, "kept none from before: the process before did not end in order")
	})
	m.run("cachesidecar", "set", "kept", "v")
	m.run("systemctl", "stop", "cachesidecar.socket", "cachesidecar.service")
	if got := fds(); got != "0" {
		m.t.Errorf("systemd keeps %s descriptors after a stop", got)
	}
	m.run("systemctl", "start", "cachesidecar.socket", "cachesidecar.service")
	if out := m.run("cachesidecar", "stats"); !strings.Contains(out, "kept none from before: systemd has passed no memory on") {
		m.t.Errorf("after a stop:\n%s", out)
	}
	m.write("/etc/cachesidecar/config.yaml", "{}\n")
	m.run("systemctl", "restart", "cachesidecar")
	if got := fds(); got != "0" {
		m.t.Errorf("systemd keeps %s descriptors without keep_memory", got)
	}
}

// writes lets an app write one key again and again. The returned function ends that; no write
// may have failed.
func (m *machine) writes(during string) (enough func()) {
	done := make(chan string)
	go func() { // ends in enough
		out, err := m.try("runuser", "-u", "app", "--", "sh", "-c",
			"until [ -e /tmp/enough ]; do cachesidecar set k v || exit 1; done")
		done <- fmt.Sprint(out, err)
	}()
	return func() {
		m.t.Helper()
		m.run("touch", "/tmp/enough")
		if got := <-done; got != "<nil>" {
			m.t.Errorf("an app during %s: %s", during, got)
		}
		m.run("rm", "/tmp/enough")
	}
}

// mended: a sidecar that cannot start, since its configuration is wrong, starts by itself once
// that is right. Until then its socket stays.
func (m *machine) mended() {
	m.t.Helper()
	m.write("/etc/cachesidecar/config.yaml", "l2_sise: 1GiB\n")
	_, _ = m.try("systemctl", "restart", "cachesidecar")
	testenv.ReadsClock(m.t, 25*time.Second, "systemd tries for a time, and a watchdog leaves what works alone for a time")
	time.Sleep(25 * time.Second) // more tries than systemd's own limits allow
	m.run("systemctl", "is-active", "cachesidecar.socket")
	m.write("/etc/cachesidecar/config.yaml", "{}\n")
	testenv.Eventually(m.t, "the sidecar serves again", func() bool {
		_, err := m.as("app", "set", "k", "v")
		return err == nil
	})
}

// upgrades: installing over a package keeps what the administrator has made of its files, even
// that one is not there.
func (m *machine) upgrades() {
	m.t.Helper()
	pid := m.mainPID()
	m.run("chmod", "0600", "/etc/cachesidecar/config.yaml")
	m.run("chown", "cachesidecar", "/etc/cachesidecar/config.yaml")
	m.run("sh", "-c", install)
	if out := m.run("stat", "-c", "%U %G %a", "/etc/cachesidecar/config.yaml"); out != "cachesidecar cachesidecar 600\n" {
		m.t.Errorf("an upgrade has made the configuration %q", out)
	}
	if out, err := m.as("app", "set", "k", "v"); err != nil || m.mainPID() == pid {
		m.t.Errorf("after an upgrade: %v %s, process %s was %s", err, out, m.mainPID(), pid)
	}
	m.run("rm", "/etc/cachesidecar/config.yaml")
	m.run("sh", "-c", install)
	m.write("/etc/cachesidecar/config.yaml", "{}\n")
	m.run("chown", "root:cachesidecar", "/etc/cachesidecar/config.yaml")
	testenv.Eventually(m.t, "the sidecar serves again", func() bool {
		_, err := m.as("app", "set", "k", "v")
		return err == nil
	})
}

// versions: an older version can be installed over this one, and this one over the older.
// Meanwhile apps wait, and none fails; the configuration stays.
func (m *machine) versions() {
	m.t.Helper()
	m.write("/etc/cachesidecar/config.yaml", "l2_size: 96MiB\n")
	enough := m.writes("a downgrade and an upgrade")
	for _, step := range []struct{ install, version string }{
		{"dpkg -i /mnt/other/cachesidecar_*.deb", "9.8.6"}, {install, "9.8.7"},
	} {
		pid := m.mainPID()
		m.run("sh", "-c", step.install)
		if out := m.run("cachesidecar", "version"); !strings.Contains(out, "v"+step.version) || m.mainPID() == pid {
			m.t.Errorf("after the installation of %s: %q, process %s was %s", step.version, out, m.mainPID(), pid)
		}
		if out := m.run("journalctl", "--no-pager", "-n", "20", "-u", "cachesidecar"); !strings.Contains(out, "96 MiB") {
			m.t.Errorf("%s does not serve with the configuration that was there:\n%s", step.version, out)
		}
	}
	enough()
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
	testenv.Eventually(m.t, "the watchdog starts another process", func() bool {
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
		testenv.Needs(t, "there is no systemd-analyze: install the Debian package systemd")
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
