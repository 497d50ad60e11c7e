module github.com/cachesidecar/cachesidecar/checks

go 1.26.0

replace github.com/cachesidecar/cachesidecar => ../
