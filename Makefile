# Each target does one thing. "make test" is what a change must pass first.

GO ?= go
FUZZTIME ?= 20s
RUNS ?= 10000
SEED ?= 0
PYTHON ?= /usr/bin/python3
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
# The modules beside the one of the program.
MODULES = benchmarks checks clients/conformance

.PHONY: build conversations install man test lengthy lengthy-nightly static race race-most race-hosts race-full bench-tests bench-tests-nightly checks checks-nightly clients clients-build \
	clients-go clients-python clients-node clients-packages nightly-packages peers-suites soak-clients deb release vet staticcheck hundred failpoints random random-ci fuzz corpus model \
	model-check model-quick clocks faults soak soak-changes soak-steady soak-memcached attacks bench bench-hits golden cross mutants weigh contents nightly

build:            ## the command, into ./cachesidecar
	$(GO) build -o cachesidecar ./cmd/cachesidecar

install:          ## the command, into $GOBIN
	$(GO) install ./cmd/cachesidecar

man:              ## the manual page, into man/cachesidecar.1
	mkdir -p man
	$(GO) run ./cmd/cachesidecar man > man/cachesidecar.1

test:             ## what the README says
	TEST_COMMAND= $(GO) test ./...

# Whole sidecars, mostly several, in one process.
HOSTS = ./internal/testing/hosts

# Where tests are named TestLengthy….
LENGTHY = . ./cmd/cachesidecar ./internal/testing/faults ./internal/testing/attacks $(HOSTS)

# Of these, attacks that need many attackers, and what costs most: not run by CI.
NIGHTLY = '^TestLengthy(VirtualRelayRestarts|VirtualReadBehindAckAll|VirtualSlander|VirtualVotersRestartInTurn|Attacks|RollingRestart|VirtualFlushAmid|VirtualHundred|KeptCluster)$$'

lengthy:          ## what test leaves out: real processes through faults and attacks, more of virtual time (about 7 minutes)
	LONG_TESTS=1 $(GO) test -timeout 30m -run '^TestLengthy' -skip $(NIGHTLY) $(LENGTHY)

lengthy-nightly:  ## the rest of it (6 minutes)
	LONG_TESTS=1 $(GO) test -timeout 30m -run $(NIGHTLY) $(LENGTHY)

clocks:           ## list the tests that read the machine's clock, each with the reason and what it counts on
	LONG_TESTS=1 $(GO) test -run '^TestLengthyClockReaders' -v .
	for m in $(MODULES); do (cd $$m && $(GO) test -run '^TestClockReaders' -v .) || exit 1; done

# Left out of race are real processes, which the detector does not watch; what has one
# goroutine: the machine of ownership, with the ring, most of the store, codecs and rules; what a server does, not
# the product: PostgreSQL's texts and settings; and what repeats the same: in virtual time, where a
# process has one processor, with other requests, or with other keys. race-full has all.
RACE = CGO_ENABLED=1 $(GO) test -race -vet=off -ldflags=-w -timeout 60m # vet has a target, and no debugger comes
UNRACED = cachesidecar/cachesidecar cmd/cachesidecar clients/c internal/testing/faults internal/testing/attacks \
	internal/testing/mutants l2/ownership l2/segment internal/access internal/calls internal/table internal/telemetry \
	internal/wire internal/configfile internal/testing/checkhistory internal/testing/history internal/testing/linear internal/testing/testenv
REPEATS = '^Test((Lengthy)?Virtual|(OptionsReachTheOwner|MemcachedRandom|MemcachedOrder|TextRandom|Restart|SplitHeals|Hundred|Detection|KeyFilterFlood|FloorsWithTheirAges|Texts|FeedUnfit|FeedSlots)$$)'
BUT = $$($(GO) list ./... $(foreach p,$(1),| grep -v /$(p)$$))

race: race-most race-hosts ## the tests under the race detector, which needs a C compiler

race-most:
	$(RACE) -skip $(REPEATS) $(call BUT,$(UNRACED) $(HOSTS:./%=%))
	$(RACE) -run '^Test(Concurrent|ExpiredMemoryComesBack|KeptLargePages)$$' ./l2/segment

race-hosts:       # after the others, and alone in its lane: its hosts must not stand still
	$(RACE) -skip $(REPEATS) $(HOSTS)

race-full:        ## all packages, and all tests of go test ./... (an hour)
	$(RACE) $(call BUT,$(HOSTS:./%=%))
	$(RACE) $(HOSTS) -virtual.random 5
	cd clients/conformance && $(RACE) ./...

static: vet staticcheck cross ## all that only compiles

# Of the measurements that are run once at small scale, those of several hosts and of overload run at night.
SEVERAL = '^Test(SeveralHosts|Propagation|Overload)Once$$'

bench-tests:      ## the benchmarks' tests (needs redis-server, memcached, and npm)
	cd benchmarks/languages && npm ci --no-audit --no-fund
	cd benchmarks && $(GO) test -skip $(SEVERAL) ./...

bench-tests-nightly: ## the rest of them
	cd benchmarks && $(GO) test -run $(SEVERAL) ./cmd/bench

checks:           ## what stands beside the program, held to Chromium, Prometheus, memcached's test suite and the like (about 8 minutes; needs their Debian packages, and npm)
	cd checks/browser && npm ci --no-audit --no-fund
	cd checks && $(GO) test ./...

checks-nightly:   ## memcached's suite against memcached itself, clients in other languages against both, and the packages in a machine that systemd boots
	cd checks && $(GO) test ./memcached -count=1 -target memcached
	cd checks/memcached/testdata/clients/node && npm ci --no-audit --no-fund
	cd checks && for of in memcached sidecars; do LONG_TESTS=1 $(GO) test ./memcached -count=1 -run '^TestLengthy' -skip '^TestLengthySuites' -target $$of || exit 1; done
	cd checks && LONG_TESTS=1 $(GO) test ./packages -count=1 -run '^TestLengthy'

# It runs its command in that folder.
CONFORMANCE = $(GO) run -C clients/conformance .

clients-build:    ## the clients for Python and Node, as their tests and those of other languages want them
	cd clients/python && $(PYTHON) setup.py -q build_ext --inplace
	cd clients/node && npm ci --no-audit --no-fund --ignore-scripts && node tools/build.js test

clients: clients-build clients-go clients-python clients-node ## the clients for Go, Python and Node, held to a real sidecar and to the conformance suite (about 4 minutes; needs Debian's Python packages, and npm)

clients-go:       # with the suite's own tests, which read in each language what another has written
	cd clients/conformance && $(GO) test ./...

clients-python:   # as clients-build has built it
	cd clients/python && $(PYTHON) -m mypy
	$(CONFORMANCE) -players 2 -ticks 2 -- $(PYTHON) -m pytest -q ../python

clients-node:     # as clients-build has built it: npm test would build dist anew, which other lanes use meanwhile
	$(CONFORMANCE) -ticks 1 -- npm --prefix ../node --silent --ignore-scripts test

clients-packages: ## wheel, wheel without the extension, sdist and npm package, into dist/
	mkdir -p dist
	cd clients/python && $(PYTHON) -m build --no-isolation -o ../../dist .
	cd clients/python && CACHESIDECAR_PURE=1 $(PYTHON) setup.py -q bdist_wheel --dist-dir ../../dist
	cd clients/node && rm -rf node_modules && npm pack --pack-destination ../../dist # installs what it needs, and builds

SOAK_CLIENTS ?= 600
soak-clients:     ## clients in Python and Node that do everything at random, while their sidecar restarts every 5 s (20 minutes)
	mkdir -p dist
	$(CONFORMANCE) -timeout 20m -restart 5s -- $(PYTHON) ../python/tests/soak.py --seconds $(SOAK_CLIENTS) --history $(CURDIR)/dist/soak-python.jsonl
	$(GO) run ./internal/testing/checkhistory dist/soak-python.jsonl
	cd clients/node && npm ci --no-audit --no-fund --ignore-scripts && node tools/build.js test
	$(CONFORMANCE) -timeout 20m -restart 5s -- node ../node/build/test/soak.js --seconds $(SOAK_CLIENTS) --history $(CURDIR)/dist/soak-node.jsonl
	$(GO) run ./internal/testing/checkhistory dist/soak-node.jsonl

deb:              ## a Debian package of this machine's architecture, into dist/
	deploy/package deb

release:          ## archives for linux/amd64 and linux/arm64, and SHA256SUMS, into dist/
	deploy/package archive

vet:              ## go vet, formatting, tidiness of all modules
	test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) mod tidy -diff
	for m in $(MODULES); do (cd $$m && $(GO) vet ./... && $(GO) mod tidy -diff) || exit 1; done

staticcheck:      ## staticcheck on all modules
	$(GO) run $(STATICCHECK) ./...
	for m in $(MODULES); do (cd $$m && $(GO) run $(STATICCHECK) ./...) || exit 1; done

hundred:          ## a hundred sidecars in one process, in virtual time (4 GB, and two to three minutes on two cores; 20 of them are part of lengthy-nightly)
	LONG_TESTS=1 $(GO) test $(HOSTS) -run TestLengthyVirtualHundred -virtual.many 100 -v -count=1

failpoints:       ## take out the guards of freshness one by one, and see each missed; nothing of the switches is in the command
	$(GO) vet -tags failpoint $(HOSTS) ./l2/ownership ./internal/failpoint
	$(GO) test -tags failpoint -timeout 60m $(HOSTS) ./l2/ownership -run TestFailpoint
	$(GO) build -o $(or $(TMPDIR),/tmp)/cachesidecar-failpoints ./cmd/cachesidecar
	! $(GO) tool nm $(or $(TMPDIR),/tmp)/cachesidecar-failpoints | grep internal/failpoint
	rm $(or $(TMPDIR),/tmp)/cachesidecar-failpoints

# What runs more often, or in more ways, with -virtual.random.
RANDOM = '^TestVirtual(Random|MaxLag|Kept|LagRandom|JoinAfterSplit|WriteThroughSettles|Totals)$$'

random:           ## RUNS short runs at random in virtual time, every other one under policy consistent (10,000 unless told: more than two hours), from SEED on; 0 draws one
	$(GO) test $(HOSTS) -run $(RANDOM) -v -virtual.random $(RUNS) -virtual.seed $(SEED) -timeout 120m

random-ci:        # the same 40 runs each time, three of each simulation of ownership, 20 seeds of the store's model, and large clusters and stores
	$(GO) test $(HOSTS) -run $(RANDOM) -virtual.random 40 -virtual.seed 1 -timeout 60m
	$(GO) test ./l2/ownership -sim.runs 3
	$(GO) test ./gossip -run '^Test(Restart|SplitHeals|Hundred)$$' -gossip.all
	$(GO) test ./l2/segment -run '^Test(AgainstModel|HiddenAgainstModel|OpenSegmentsAtAllClasses|RandomKeysAreNotCrowded|KeysOfSharedBits|ChosenHashes)$$' -model.seeds 20

conversations:    ## 300 random conversations with memcached's endpoint, and with memcached
	$(GO) test ./internal/memcached $(HOSTS) -run '^Test(Text|Memcached)Random$$' -memcached.runs 300 -count=1 -timeout 60m

fuzz:             ## each fuzz target for FUZZTIME; fails where anything is found, and leaves it in testdata/fuzz
	./.ci/fuzz decide $(FUZZTIME)

corpus:           ## keep what fuzzing found interesting, in testdata/fuzz; see CONTRIBUTING.md
	./.ci/fuzz keep

model:            ## the store against a plain map: 100 seeds of a million operations
	$(GO) test ./l2/segment -run TestAgainstModel -v -model.seeds 100 -model.ops 1000000 -timeout 60m

model-quick:      # the part of it that CI runs
	./model/run quick

model-check:      ## the rules of ownership, exhaustively with spin (two minutes and more; needs spin and gcc)
	./model/run

faults:           ## real processes and networks through faults, the long way (about 10 minutes; the short way is part of test and lengthy; not run by CI)
	LONG_TESTS=1 $(GO) test ./internal/testing/faults -v -count=1 -faults.long -timeout 60m

SOAK ?= 30m
soak:             ## real processes and networks, killed, paused, cut and restarted at random for half an hour, as root
	$(GO) test ./internal/testing/faults -run TestNetnsSoak -v -count=1 -faults.for $(SOAK) -timeout 60m

SOAK_CHANGES ?= 30m
soak-changes:     ## rows of a PostgreSQL change for half an hour, and no app announces it, while hosts and server fail: max_lag holds
	LONG_TESTS=1 $(GO) test ./internal/testing/faults -run TestLengthyProcessMaxLag -v -count=1 -maxlag.for $(SOAK_CHANGES) -timeout 60m

SOAK_STEADY ?= 20m
soak-steady:      ## real processes at 70 % of their peak for 20 minutes, while hosts join, leave, drain, reload and restart, keys and certificates change, and the origin goes away: no error, nothing grows
	$(GO) test ./internal/testing/faults -run TestSteadySoak -v -count=1 -faults.steady $(SOAK_STEADY) -timeout 60m

SOAK_MEMCACHED ?= 10m
soak-memcached:   ## three clients of memcached do usual jobs on three hosts, which restart in turn every 20 s, and every answer is explained (10 minutes)
	cd checks && $(GO) test ./memcached -run TestSoak -v -count=1 -for $(SOAK_MEMCACHED) -timeout 30m

peers-suites:     ## the own test suites of clients of memcached, against memcached and a sidecar (9 minutes; fetches sources from Debian, and npm packages)
	cd checks/memcached/testdata/clients/node && npm ci --no-audit --no-fund
	cd checks && LONG_TESTS=1 $(GO) test ./memcached -count=1 -run '^TestLengthySuites' -v -timeout 60m

nightly-packages: ## what nightly wants beside the packages of .ci/run, from Debian, as root
	apt-get install -y -qq --no-install-recommends php-cli php-memcached php-memcache ruby ruby-dalli python3-memcache \
		python3-pylibmc libcache-memcached-perl libcache-memcached-fast-perl libmemcached-libmemcached-perl \
		libspymemcached-java default-jdk-headless php-dev python3-mock libtest2-suite-perl

# The first two lanes only count; what follows measures, or uses both processors.
nightly: clients-build ## what is too long for CI, three hours at most; once before an issue is called done
	RUNS=3000 .ci/lanes race-full "fuzz random conversations hundred model-check"
	$(MAKE) lengthy-nightly
	$(MAKE) bench-tests-nightly
	$(MAKE) checks-nightly
	$(MAKE) peers-suites
	$(MAKE) faults
	$(MAKE) soak SOAK=8m
	$(MAKE) soak-changes SOAK_CHANGES=4m
	$(MAKE) soak-steady SOAK_STEADY=4m
	$(MAKE) soak-memcached SOAK_MEMCACHED=4m
	$(MAKE) soak-clients SOAK_CLIENTS=180

contents:         ## what each file of the product holds, a line each
	$(GO) run ./internal/testing/contents

weigh:            ## lines and tokens of the product, by package
	$(GO) run ./internal/testing/weigh

mutants:          ## small faults, one at a time, and how many of them the tests find (up to 3 hours)
	CGO_ENABLED=0 $(GO) run ./internal/testing/mutants

attacks:          ## attackers beside victims, timed, as root; writes the table in docs/ATTACKS.md (about 8 minutes on two cores; a short way is part of lengthy-nightly)
	LONG_TESTS=1 $(GO) test ./internal/testing/attacks -run TestLengthyAttacks -v -count=1 -attacks.table $(abspath docs/ATTACKS.md) -timeout 30m

bench:            ## measure everything and write benchmarks/RESULTS.md (about half an hour, on a quiet machine)
	cd benchmarks && $(GO) run ./cmd/bench all

bench-hits:       ## replay the traces in the folder TRACES
	cd benchmarks && $(GO) run ./cmd/bench hits -traces $(abspath $(TRACES))

golden:           ## rewrite the golden bytes and pages, docs/METRICS.md and the tables of docs/CONFIG.md; look at the difference
	$(GO) test ./internal/wire ./internal/shm ./internal/telemetry $(HOSTS) ./internal/configfile ./cmd/cachesidecar -run TestGolden -update

cross:            ## the platforms that are built but not tested
	GOOS=linux GOARCH=arm64 $(GO) build ./...
	GOOS=darwin GOARCH=arm64 $(GO) vet ./...
	cd clients/conformance && GOOS=linux GOARCH=arm64 $(GO) vet . && GOOS=darwin GOARCH=arm64 $(GO) vet .
