package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// readDeploy reads a file below deploy/.
func readDeploy(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "deploy", name))
	testenv.Must(t, err)
	return string(b)
}

// TestUnitMemory checks that MemoryMax of the unit is what a sidecar with the defaults needs.
func TestUnitMemory(t *testing.T) {
	shown := mustRun(t, "config", "show")
	m := regexp.MustCompile(`(?m)^# Such a process needs (\d+) MiB of memory`).FindStringSubmatch(shown)
	if m == nil {
		t.Fatalf("no memory is stated:\n%s", shown)
	}
	if line := "\n#MemoryMax=" + m[1] + "M\n"; !strings.Contains(readDeploy(t, "systemd/cachesidecar.service"), line) {
		t.Errorf("the unit lacks %q", line)
	}
}

// TestRestartsAgree checks that the unit starts the sidecar again after every exit status of a
// failure, as the pages say, and waits for its end as long as they say that it takes.
func TestRestartsAgree(t *testing.T) {
	unit := readDeploy(t, "systemd/cachesidecar.service")
	for _, want := range []string{"\nRestart=on-failure\n", "\nStartLimitIntervalSec=0\n", "\nTimeoutStopSec=45\n"} {
		if !strings.Contains(unit, want) {
			t.Errorf("the unit lacks %q", want)
		}
	}
	if strings.Contains(unit, "\nRestartPreventExitStatus=") {
		t.Error("the unit leaves a sidecar with a wrong setting stopped, also once the setting is right")
	}
	for page, want := range map[string]string{
		"OPERATIONS.md": `A wrong setting is status 2, every other failure 1\. Let the supervisor start it again after both`,
		"CLI.md":        `A wrong setting is status 2\. A later failure is status 1, .*A supervisor starts it again after both`,
	} {
		text := strings.Join(strings.Fields(readDoc(t, page)), " ")
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("%s lacks %q", page, want)
		}
		if strings.Contains(text, "not after 2") {
			t.Errorf("%s tells not to start it again after status 2", page)
		}
		if !strings.Contains(text, "27.5 s") {
			t.Errorf("%s does not tell how long the end takes", page)
		}
	}
}
