// Package cachesidecar has the words that the packages client and sidecar share: the
// result of a read (Item), the options of calls, the errors, and the statistics of a
// sidecar.
//
// It makes no call itself. An app talks to the sidecar on its host with package client. A
// program that is to be a sidecar itself embeds package sidecar. Both return the errors
// of this package.
package cachesidecar
