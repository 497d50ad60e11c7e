// Package cachesidecar has the types that the packages client and sidecar share.
package cachesidecar
