module github.com/cachesidecar/cachesidecar/clients/conformance

go 1.26.0

require (
	github.com/cachesidecar/cachesidecar v0.0.0
	github.com/tinylib/msgp v1.6.5
	golang.org/x/sys v0.49.0
)

require (
	github.com/klauspost/cpuid/v2 v2.4.0 // indirect
	github.com/philhofer/fwd v1.2.0 // indirect
	github.com/vmihailenco/msgpack/v5 v5.4.1 // indirect
	github.com/vmihailenco/tagparser/v2 v2.0.0 // indirect
	github.com/zeebo/xxh3 v1.1.0 // indirect
	go.uber.org/goleak v1.3.0 // indirect
)

replace github.com/cachesidecar/cachesidecar => ../../
