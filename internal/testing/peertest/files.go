package peertest

import (
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"testing"
)

// Seed is a seed for key files.
const Seed = 0x0123456789abcdef

// KeyText returns the text of a key file. Each key repeats one of the digits.
func KeyText(seed uint64, digits string) string {
	text := fmt.Sprintf("seed: %016x\n", seed)
	for _, d := range digits {
		text += "key: " + strings.Repeat(string(d), 64) + "\n"
	}
	return text
}

// Replace replaces a file in one step.
func Replace(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+"-", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+"-", path); err != nil {
		t.Fatal(err)
	}
}

// PEM encodes bytes.
func PEM(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
