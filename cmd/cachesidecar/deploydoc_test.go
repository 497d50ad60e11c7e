package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/dustin/go-humanize"
)

// readDeploy reads a file below deploy/.
func readDeploy(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestMemoryIsOneFormula checks that the page, the unit and the manifests have one formula for
// the memory of the process, that MemoryMax of the unit is what it gives with the defaults and
// 1,000 connections, and that the pages name all sizes that the start check adds up.
func TestMemoryIsOneFormula(t *testing.T) {
	const formula = "l2_size + 2 × l1_size + buffer_size + shared_size + 12 KiB × connections + 2 × key filters + 96 MiB"
	unit := readDeploy(t, "systemd/cachesidecar.service")
	for name, text := range map[string]string{
		"OPERATIONS.md": readDoc(t, "OPERATIONS.md"), "the unit": unit,
		"daemonset.yaml": readDeploy(t, "kubernetes/daemonset.yaml"), "sidecar.yaml": readDeploy(t, "kubernetes/sidecar.yaml"),
	} {
		if !strings.Contains(text, formula) {
			t.Errorf("%s does not have the formula %s", name, formula)
		}
	}
	var list []struct {
		Setting string `json:"setting"`
		Value   any    `json:"value"`
	}
	if err := json.Unmarshal([]byte(mustRun(t, "config", "show", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	sizes := map[string]uint64{}
	for _, s := range list {
		if n, err := humanize.ParseBytes(fmt.Sprint(s.Value)); err == nil {
			sizes[s.Setting] = n
		}
	}
	want := sizes["l2_size"] + 2*sizes["l1_size"] + sizes["buffer_size"] + sizes["shared_size"] + 12<<10*1000 + 96<<20
	for _, line := range []string{fmt.Sprintf("#MemoryMax=%dM", (want+1<<20-1)>>20), fmt.Sprintf("of the defaults with 1,000 connections %dM:", (want+1<<20-1)>>20)} {
		if !strings.Contains(unit, line) {
			t.Errorf("the unit lacks %q", line)
		}
	}
	plain := func(page string) string {
		return strings.Join(strings.Fields(strings.ReplaceAll(readDoc(t, page), "`", "")), " ")
	}
	for _, page := range []string{"OPERATIONS.md", "CONFIG.md"} {
		text := plain(page)
		if !strings.Contains(text, "l1_size + l2_size + buffer_size + shared_size + 32 MiB") {
			t.Errorf("%s does not tell what the start check adds up", page)
		}
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
		"OPERATIONS.md": `wrong setting and with 1 for every other failure\. Let the supervisor start it again after both`,
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
