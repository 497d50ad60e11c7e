package recipe

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// page is the recipe, cut into its blocks.
type page struct {
	text   string
	blocks map[string]string // by the name in the comment before the block
}

var block = regexp.MustCompile("(?s)<!-- recipe: ([a-z.]+) -->\n\n```[a-z]+\n(.*?)```\n")

// readPage cuts the recipe into blocks. Each block of the page must have a name: a block without
// one would not be run.
func readPage(t *testing.T) *page {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "docs", "RECIPE-PYTHON.md"))
	if err != nil {
		t.Fatal(err)
	}
	p := &page{text: string(b), blocks: map[string]string{}}
	for _, m := range block.FindAllStringSubmatch(p.text, -1) {
		p.blocks[m[1]] = m[2]
	}
	if fences := strings.Count(p.text, "\n```"); fences != 2*len(p.blocks) {
		t.Fatalf("%d fences, and %d blocks with names of their own", fences, len(p.blocks))
	}
	return p
}

// take returns a block. At the end of the test every block must have been taken.
func (p *page) take(t *testing.T, name string) string {
	t.Helper()
	text, ok := p.blocks[name]
	if !ok {
		t.Fatalf("the page has no block %q, or it was taken already", name)
	}
	delete(p.blocks, name)
	return text
}

// place says where the page's hosts, folders and database are on this machine.
type place struct {
	dir, network, postgres string
}

// newPlace draws a network of the loopback addresses, so that the page's fixed ports are free.
func newPlace(dir, postgres string) *place {
	return &place{dir: dir, postgres: postgres, network: fmt.Sprintf("127.%d.%d.", 1+rand.IntN(254), rand.IntN(256))}
}

func (p *place) address(host int) string { return fmt.Sprint(p.network, host) }

func (p *place) folder(host int) string { return filepath.Join(p.dir, fmt.Sprint(host)) }

// on returns a text of the page, which is about host 1, as it is on a host.
func (p *place) on(host int, text string) string {
	h := fmt.Sprint(host)
	return strings.NewReplacer(
		"node: web-1", "node: web-"+h,
		"bind: 10.0.0.1", "bind: "+p.address(host),
		"--bind 10.0.0.1", "--bind "+p.address(host),
		"10.0.0.", p.network,
		"127.0.0.1:", p.address(host)+":",
		"/usr/local/bin", filepath.Join(p.dir, "bin"),
		"/etc/cachesidecar", filepath.Join(p.folder(host), "etc"),
		"/run/cachesidecar", filepath.Join(p.folder(host), "run"),
		"/srv/articles", filepath.Join(p.folder(host), "srv"),
		"host=/run/postgresql user=articles dbname=articles", p.postgres,
	).Replace(text)
}
