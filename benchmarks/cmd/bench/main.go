package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/pprof"
	"time"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/internal/load"
)

func main() {
	rounds := flag.Int("rounds", 5, "")
	dur := flag.Duration("d", 2*time.Second, "")
	flag.Parse()
	ctx := context.Background()
	if f := os.Getenv("PROF"); f != "" {
		w, _ := os.Create(f)
		pprof.StartCPUProfile(w)
		defer pprof.StopCPUProfile()
	}
	dir, _ := os.MkdirTemp("", "bench")
	defer os.RemoveAll(dir)
	if err := peers.Build(ctx, dir); err != nil {
		panic(err)
	}
	o := peers.Options{Dir: dir, Bytes: 1 << 30, KeySize: 16, ValueSize: 100}
	var servers []*peers.Server
	for _, n := range []string{"echo", "sidecar", "redis", "memcached"} {
		s, err := peers.Start(ctx, n, o)
		if err != nil {
			panic(err)
		}
		defer s.Stop()
		servers = append(servers, s)
		if s.Set != nil {
			if _, err := load.Run(ctx, load.Config{Dial: s.Dial, Protocol: s.Set, Conns: 1, Pipeline: 64, Once: true, Batches: 1600, Key: func(_, n int) uint64 { return uint64(n) % 100000 }}); err != nil {
				panic(err)
			}
		}
	}
	for _, shape := range shapes() {
		for _, op := range []string{"GET", "SET"} {
			for r := 0; r < *rounds; r++ {
				fmt.Printf("%2d x %2d %s", shape[0], shape[1], op)
				var echo float64
				for _, s := range servers {
					p := s.Get
					if op == "SET" && s.Set != nil {
						p = s.Set
					}
					res, err := load.Run(ctx, load.Config{Dial: s.Dial, Protocol: p, Conns: shape[0], Pipeline: shape[1], Duration: *dur, WarmUp: *dur / 10,
						Key: func(int, int) uint64 { return rand.Uint64N(100000) }})
					if err != nil {
						panic(err)
					}
					if s.Name == "echo" {
						echo = res.PerSecond()
					}
					fmt.Printf("  %s %.0fk (%.2f) p50 %dus p99 %dus h%.2f", s.Name, res.PerSecond()/1000, res.PerSecond()/echo, res.Latency.ValueAtQuantile(50)/1000, res.Latency.ValueAtQuantile(99)/1000, float64(res.Hits)/float64(res.Requests))
				}
				fmt.Println()
			}
		}
	}
}

func shapes() (l [][2]int) {
	for _, a := range flag.Args() {
		var s [2]int
		fmt.Sscanf(a, "%dx%d", &s[0], &s[1])
		l = append(l, s)
	}
	return l
}
