package cachesidecar

import (
	"os"
	"regexp"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// namedPath matches a file or folder of this module in the text of a page.
var namedPath = regexp.MustCompile("`((?:[a-z0-9]+/)+[a-z0-9_]*(?:\\.[a-z]+)?)`")

// TestPagesNameFiles checks that the files and folders that the pages for contributors name
// exist.
func TestPagesNameFiles(t *testing.T) {
	for page, least := range map[string]int{"CONTRIBUTING.md": 20, "ARCHITECTURE.md": 20} {
		text, err := os.ReadFile(page)
		testenv.Must(t, err)
		named := namedPath.FindAllStringSubmatch(string(text), -1)
		if len(named) < least {
			t.Errorf("%s names %d files and folders, want %d or more", page, len(named), least)
		}
		for _, m := range named {
			if m[1] == "testing/synctest" || m[1] == "testdata/fuzz" { // of Go itself
				continue
			}
			if _, err := os.Stat(m[1]); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
}
