package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestHealthJSON checks the fields of health --json, and its statuses.
func TestHealthJSON(t *testing.T) {
	dir := tempDir(t)
	socket, file := filepath.Join(dir, "s"), filepath.Join(dir, "c.yaml")
	t.Setenv("CACHESIDECAR_SOCKET", socket)
	if o := command(t, "", "health", "--json"); o.status != exitConnect || o.out != "" {
		t.Errorf("without a sidecar: %v", o)
	}
	text := "http: 'off'\nnamespaces:\n  users: {origin: {redis: {address: '127.0.0.1:1'}}}\n"
	testenv.Must(t, os.WriteFile(file, []byte(text), 0o600))
	command(t, "", "run", "--ask-origins", "--socket", socket, "--config", file).fails(t, "run --ask-origins", exitMiss, "namespace users")
	p := runSidecarAt(t, socket, "--config", file)
	p.waitFor("a check", p.log, func(log string) bool { return strings.Contains(log, "it is asked again") })
	o := command(t, "", "health", "--json")
	var h map[string]any
	err := json.Unmarshal([]byte(o.out), &h)
	if findings, _ := h["findings"].([]any); err != nil || o.status != exitDone || h["node"] != "host1" || h["state"] != "not_well" ||
		len(h) != 3 || len(findings) != 1 || !strings.HasPrefix(findings[0].(string), "origin of users (redis): checks failed") {
		t.Errorf("%v: %v", o, err)
	}
	for _, tc := range []struct {
		notReady string
		status   int
		want     string
	}{
		{"", exitDone, `{"node":"a","state":"serving","findings":[]}`},
		{"no host", exitMiss, `{"node":"a","state":"not_ready","findings":["no host"]}`},
	} {
		body := wire.MarshalBody(cachesidecar.Stats{Node: "a", NotReady: tc.notReady})
		o := command(t, "", "health", "--json", "--socket", fakeSidecar(t, answering(wire.Reply{Body: body})))
		var got bytes.Buffer
		err = json.Compact(&got, []byte(o.out))
		if err != nil || strings.TrimSpace(got.String()) != tc.want || o.status != tc.status || o.err != "" {
			t.Errorf("%v: %v\nwant status %d and %s", o, err, tc.status, tc.want)
		}
	}
}

// TestHTTPWarning checks which addresses of HTTP config check warns of.
func TestHTTPWarning(t *testing.T) {
	dir := tempDir(t)
	file, token := filepath.Join(dir, "c.yaml"), filepath.Join(dir, "token")
	testenv.Must(t, os.WriteFile(token, []byte("0123456789abcdef\n"), 0o600))
	for text, warns := range map[string]bool{
		"http: ':7948'": true, "http: 0.0.0.0:7948": true, "http: '[::]:7948'": true, "http: '[::ffff:0.0.0.0]:7948'": true,
		"http: ':7948'\nhttp_token_file: " + token: false,
		"http: 127.0.0.1:7948":                     false, "http: 10.0.0.1:7948": false, "http: 'off'": false, "": false,
	} {
		testenv.Must(t, os.WriteFile(file, []byte(text+"\n"), 0o600))
		o := command(t, "", "config", "check", file)
		if o.status != exitDone || o.out != "ok\n" || strings.Contains(o.err, "warning: http listens on all addresses") != warns {
			t.Errorf("%q: %v", text, o)
		}
	}
}
