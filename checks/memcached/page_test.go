package memcached

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of the suite into README.md")

const (
	page      = "README.md"
	pageBegin = "<!-- the table of checks/memcached begins; go test ./memcached -run TestPage -update writes it -->\n"
	pageEnd   = "<!-- the table of checks/memcached ends -->\n"
)

// TestPage holds the table in README.md to the table of the suite.
func TestPage(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begins := strings.Cut(string(text), pageBegin)
	_, after, ends := strings.Cut(rest, pageEnd)
	if !begins || !ends {
		t.Fatalf("%s lacks %q or %q", page, pageBegin, pageEnd)
	}
	want := before + pageBegin + readTable(t).markdown() + pageEnd + after
	if string(text) == want {
		return
	}
	if !*update {
		t.Fatalf("%s has another table of the suite: run cd checks && go test ./memcached -run TestPage -update", page)
	}
	if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// markdown writes the table for a person: what passes, what passes in part, and what cannot
// apply, by reason.
func (tab table) markdown() string {
	var whole, part []string
	apart := map[string][]string{}
	for _, file := range slices.Sorted(maps.Keys(tab)) {
		on, itself := tab[file]["sidecars"], tab[file]["memcached"]
		switch {
		case on.apart != "":
			apart[on.apart] = append(apart[on.apart], "`"+file+"`")
		case len(on.fails) == 0:
			whole = append(whole, "`"+file+"`")
		default:
			part = append(part, fmt.Sprintf("| `%s` | %s | %s |\n", file, on.says(), itself.says()))
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d of the suite's %d files pass on sidecars, all of their subtests:\n%s.\n\n",
		len(whole), len(tab), strings.Join(whole, ", "))
	fmt.Fprintf(&b, "%d files pass but for subtests that cannot apply. memcached itself fails some too when it runs\n"+
		"without the options that the file asks for:\n\n| file | fail on sidecars | fail on memcached itself |\n"+
		"|---|---|---|\n%s\n",
		len(part), strings.Join(part, ""))
	fmt.Fprintf(&b, "%d files are not run, since they cannot apply. They are about:\n\n| about | files |\n|---|---|\n",
		len(tab)-len(whole)-len(part))
	for _, reason := range slices.Sorted(maps.Keys(apart)) {
		fmt.Fprintf(&b, "| %s | %s |\n", reason, strings.Join(apart[reason], ", "))
	}
	return b.String()
}

// says writes the subtests that fail.
func (v verdict) says() string {
	var list []string
	for _, r := range v.rows {
		list = append(list, r.subtests+": "+r.reason)
	}
	if v.apart != "" {
		list = append(list, "not run: "+v.apart)
	}
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, "; ")
}
