package main

import (
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func TestUnknownVariables(t *testing.T) {
	file := testenv.File(t, "namespaces: {a: {origin: {redis: {address: 'h:1', password_env: CACHESIDECAR_SECRET}}}}\n")
	t.Setenv("CACHESIDECAR_SECRET", "x")
	for name, want := range map[string]string{
		"CACHESIDECAR_L2SIZE":             "did you mean $CACHESIDECAR_L2_SIZE?",
		"CACHESIDECAR_L2_SIZES":           "did you mean $CACHESIDECAR_L2_SIZE?",
		"CACHESIDECAR_l2_size":            "did you mean $CACHESIDECAR_L2_SIZE?",
		"CACHESIDECAR_TOKENFILE":          "did you mean $CACHESIDECAR_TOKEN_FILE?",
		"CACHESIDECAR_":                   "see docs/CONFIG.md",
		"CACHESIDECAR_SOMETHING_ELSE":     "see docs/CONFIG.md",
		"CACHESIDECAR_REPORT":             "$CACHESIDECAR_REPORT is no setting", // PORT is no word of its own
		"CACHESIDECAR_NODE":               "",
		"CACHESIDECAR_CONFIG":             "",
		"CACHESIDECAR_TOKEN_FILE":         "",
		"CACHESIDECAR_COLD":               "",
		"CACHESIDECAR_ASK_ORIGINS":        "",
		"CACHESIDECAR_SOCKET":             "",
		"CACHESIDECAR_SECRET":             "", // the file names it
		"CACHESIDECAR_SERVICE_HOST":       "",
		"CACHESIDECAR_SERVICE_PORT":       "",
		"CACHESIDECAR_SERVICE_PORT_HTTP":  "",
		"CACHESIDECAR_PORT":               "",
		"CACHESIDECAR_PORT_7946_TCP":      "",
		"CACHESIDECAR_PORT_7946_TCP_ADDR": "",
		"CACHESIDECAR_HTTP_SERVICE_HOST":  "",
		"CACHESIDECAR_HTTP_PORT":          "",
		"CACHESIDECAR_HTTP_PORT_80_TCP":   "",
		"CACHESIDECARS":                   "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, "x")
			o := command(t, "", "config", "check", file)
			if o.status != exitDone || want == "" && o.err != "" || !strings.Contains(o.err, want) {
				t.Errorf("%v\nwant %q on stderr", o, want)
			}
			if want != "" && !strings.HasPrefix(o.err, "cachesidecar: warning: $"+name+" is no setting") {
				t.Errorf("%v", o)
			}
		})
	}
}

// TestRunWarnsOfVariables checks that the log of run has the warning.
func TestRunWarnsOfVariables(t *testing.T) {
	t.Setenv("CACHESIDECAR_NOED", "x")
	if o := command(t, "", "run", "--l2-size", "1KiB"); o.status != exitUsage || !strings.Contains(o.err, `"level":"WARN","msg":"$CACHESIDECAR_NOED is no setting, and it has no effect: did you mean $CACHESIDECAR_NODE?"`) {
		t.Errorf("%v", o)
	}
}
