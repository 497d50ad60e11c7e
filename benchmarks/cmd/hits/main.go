package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/cachesidecar/cachesidecar/benchmarks/hits"
	"github.com/cachesidecar/cachesidecar/benchmarks/trace"
)

func main() {
	flag.Parse()
	sizes := map[string][]int64{
		"cache2k-web07": {1000, 4000}, "cache2k-web12": {700, 2800}, "cache2k-orm-busy": {760, 3800, 15000},
		"arc-OLTP": {1000, 2000, 5000, 15000}, "arc-P6": {40000, 160000},
	}
	files, err := trace.Files(flag.Arg(0))
	if err != nil {
		panic(err)
	}
	only := map[string]bool{}
	for _, a := range flag.Args()[1:] {
		only[a] = true
	}
	var sum, n float64
	for _, f := range files {
		var keys []uint64
		for q, err := range trace.Read(f) {
			if err != nil {
				panic(err)
			}
			keys = append(keys, q.Key)
		}
		for _, size := range sizes[trace.Name(f)] {
			fmt.Fprintf(os.Stdout, "%-18s %7d", trace.Name(f), size)
			var lru float64
			for _, p := range hits.Policies {
				if len(only) > 0 && !only[p.Name] {
					continue
				}
				c, err := p.New(size, false)
				if err != nil {
					panic(err)
				}
				h := 0
				for _, k := range keys {
					if c.Access(k, 0) {
						h++
					}
				}
				c.Close()
				r := 100 * float64(h) / float64(len(keys))
				fmt.Printf(" %s %.2f", p.Name, r)
				if p.Name == "LRU" {
					lru = r
				}
				if p.Name == "l2/segment" {
					fmt.Printf(" (%+.2f)", r-lru)
					sum += r - lru
					n++
				}
			}
			fmt.Println()
		}
	}
	fmt.Printf("mean over LRU %+.2f\n", sum/n)
}
