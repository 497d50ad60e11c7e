// Package loader describes origins, from which missing values are loaded, and protects
// them from too many calls.
//
// For an origin of your own implement Source, put it into a Custom, and give that to
// sidecar.Namespace.Origin. The packages below this one are the origins that the command
// has; their Configs go into the same field.
//
//	Source   an origin: it loads the value of one key
//	Writer   an origin that accepts changes: write-through
//	Lister   an origin that can list its keys: for the key filter, and for loads at the start
//	Custom   an origin that the program implements itself
//	Keys     which keys may be requested at all
//	Guard    concurrency, rate, breaker and retries before one origin
//
// For a kind of origin of your own, with settings of its own, implement OriginConfig. Checker, Reservation,
// Idle, Scanner and Lines are what the kinds below share.
//
// Inputs are keys and settings. Outputs are values, lists of keys and errors that say
// whether a retry is useful. The errors here are what an origin tells the sidecar; what
// apps get are the errors of package cachesidecar.
//
// Package loader is not a cache: it keeps no value and collapses no loads (the sidecar
// does), and knows no other host. It does not talk to origins itself (the packages below
// it do), reads no configuration file, and starts no goroutine.
package loader
