package settings

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestReadFile checks that regular files of a limited size are read, and that pipes, devices
// and folders are refused at once, also behind a link.
func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{"text": "hello", "full": "0123456789", "long": "0123456789a"} {
		testenv.Must(t, os.WriteFile(at(name), []byte(text), 0o644))
	}
	testenv.Must(t, syscall.Mkfifo(at("pipe"), 0o600))
	for link, target := range map[string]string{"to-text": at("text"), "to-pipe": at("pipe"), "to-zero": "/dev/zero"} {
		testenv.Must(t, os.Symlink(target, at(link)))
	}
	for _, tc := range []struct{ path, want, fault string }{
		{at("text"), "hello", ""},
		{at("to-text"), "hello", ""},
		{at("full"), "0123456789", ""},
		{at("long"), "", "it has more than 10 bytes"},
		{at("pipe"), "", "it is no regular file"},
		{at("to-pipe"), "", "it is no regular file"},
		{"/dev/zero", "", "it is no regular file"},
		{at("to-zero"), "", "it is no regular file"},
		{dir, "", "it is no regular file"},
		{at("none"), "", "no such file"},
	} {
		b, err := ReadFile(tc.path, 10)
		if string(b) != tc.want || (err == nil) != (tc.fault == "") || err != nil && !strings.Contains(err.Error(), tc.fault) {
			t.Errorf("%s: %q, %v, want %q, %q", tc.path, b, err, tc.want, tc.fault)
		}
		if err != nil && strings.Contains(err.Error(), dir) {
			t.Errorf("%s: the error names the path: %v", tc.path, err)
		}
	}
}

// TestReadSecret checks that a secret is refused if all users have access to it, or if
// another user owns it.
func TestReadSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	testenv.Must(t, os.WriteFile(path, []byte("s3cret"), 0o600))
	for mode, fault := range map[os.FileMode]string{
		0o600: "", 0o400: "", 0o640: "", 0o440: "", 0o750: "",
		0o644: "mode 0644, which lets other users read or change it: chmod 0640 it, or 0600",
		0o604: "chmod 0600 it", 0o602: "chmod 0600 it", 0o601: "chmod 0600 it", 0o660: "chmod 0640 it",
	} {
		testenv.Must(t, os.Chmod(path, mode))
		b, err := ReadSecret(path, 10)
		if (err == nil) != (fault == "") || err != nil && !strings.Contains(err.Error(), fault) || err == nil && string(b) != "s3cret" {
			t.Errorf("mode %04o: %q, %v, want %q", mode, b, err, fault)
		}
	}
	if os.Getuid() != 0 {
		t.Log("not root, so files of other users are not tried")
		return
	}
	testenv.Must(t, os.Chmod(path, 0o600))
	testenv.Must(t, os.Chown(path, 65534, 65534))
	if _, err := ReadSecret(path, 10); err == nil || !strings.Contains(err.Error(), "belongs to uid 65534: chown it to uid 0") {
		t.Errorf("another user's file: %v", err)
	}
}

// TestReadTrusted checks that all users may read a trusted file, but only its owner may
// change it.
func TestReadTrusted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca")
	testenv.Must(t, os.WriteFile(path, []byte("roots"), 0o600))
	for mode, fault := range map[os.FileMode]string{
		0o600: "", 0o644: "", 0o755: "",
		0o664: "mode 0664, which lets other users change it: chmod 0644 it", 0o646: "chmod 0644 it", 0o666: "chmod 0644 it",
	} {
		testenv.Must(t, os.Chmod(path, mode))
		b, err := ReadTrusted(path, 10)
		if (err == nil) != (fault == "") || err != nil && !strings.Contains(err.Error(), fault) || err == nil && string(b) != "roots" {
			t.Errorf("mode %04o: %q, %v, want %q", mode, b, err, fault)
		}
	}
}
