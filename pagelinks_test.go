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
)

var (
	pageLink  = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	pageTitle = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	pageCode  = regexp.MustCompile("(?ms)^```.*?^```$")
)

// toCome are pages that are written beside this one. The line goes once they are here.
var toCome = []string{"docs/ALERTS.md", "deploy/README.md"}

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
	if err != nil {
		t.Fatal(err)
	}
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
	if os.IsNotExist(err) && slices.Contains(toCome, filepath.ToSlash(target)) {
		return nil
	}
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
