package cachesidecar

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

var (
	pageLink  = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	pageTitle = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	pageCode  = regexp.MustCompile("(?ms)^```.*?^```$")
)

// TestPageLinks checks that each link of a page to this repository leads to a file that there is,
// and to a title of it.
func TestPageLinks(t *testing.T) {
	found := 0
	err := filepath.WalkDir(".", func(page string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == "node_modules" || d.Name() == ".git") {
			return fs.SkipDir
		}
		if d.IsDir() || filepath.Ext(page) != ".md" {
			return nil
		}
		text, err := os.ReadFile(page)
		if err != nil {
			return err
		}
		for _, m := range pageLink.FindAllStringSubmatch(pageCode.ReplaceAllString(string(text), ""), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			found++
			if err := follow(page, m[1]); err != nil {
				t.Errorf("%s: link to %s: %v", page, m[1], err)
			}
		}
		return nil
	})
	testenv.Must(t, err)
	if found < 150 {
		t.Errorf("%d links, want 150 or more: the search is broken", found)
	}
}

// follow looks for what a link of a page leads to.
func follow(page, link string) error {
	path, anchor, hasAnchor := strings.Cut(link, "#")
	target := page
	if path != "" {
		target = filepath.Join(filepath.Dir(page), filepath.FromSlash(path))
	}
	info, err := os.Stat(target)
	if err != nil || !hasAnchor {
		return err
	}
	if info.IsDir() || filepath.Ext(target) != ".md" {
		return fmt.Errorf("%s has no titles", target)
	}
	text, err := os.ReadFile(target)
	if err != nil {
		return err
	}
	if !slices.Contains(anchors(string(text)), anchor) {
		return fmt.Errorf("%s has no such title", target)
	}
	return nil
}

var notInAnchor = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)

// anchors returns the anchors of a page's titles, as GitHub makes them.
func anchors(page string) (list []string) {
	seen := map[string]int{}
	for _, m := range pageTitle.FindAllStringSubmatch(pageCode.ReplaceAllString(page, ""), -1) {
		a := strings.ReplaceAll(notInAnchor.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")
		if n := seen[a]; n > 0 {
			list = append(list, fmt.Sprintf("%s-%d", a, n))
		} else {
			list = append(list, a)
		}
		seen[a]++
	}
	return list
}

var metricInPage = regexp.MustCompile(`\bcachesidecar_([a-z0-9_]*[a-z0-9])\b`)

// TestPagesNameMetrics checks that the pages name no metric that docs/METRICS.md does not have.
func TestPagesNameMetrics(t *testing.T) {
	table, err := os.ReadFile("docs/METRICS.md")
	testenv.Must(t, err)
	found := 0
	for _, pattern := range []string{"*.md", "docs/*.md", "deploy/*.md"} {
		pages, err := filepath.Glob(pattern)
		testenv.Must(t, err)
		for _, page := range pages {
			text, err := os.ReadFile(page)
			testenv.Must(t, err)
			for _, m := range metricInPage.FindAllStringSubmatch(string(text), -1) {
				found++
				name := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(m[1], "_bucket"), "_sum"), "_count")
				if !strings.Contains(string(table), "| `"+name+"` |") {
					t.Errorf("%s: there is no metric %s", page, m[0])
				}
			}
		}
	}
	if found < 30 {
		t.Errorf("%d metrics, want 30 or more: the search is broken", found)
	}
}
