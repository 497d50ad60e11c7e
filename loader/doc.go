// Package loader describes origins, from which missing values are loaded, and protects
// them from too many calls. The packages below it are the origins that the command has;
// a program that embeds a sidecar can register its own (Custom).
//
//	Source   an origin: it loads the value of one key
//	Lister   an origin that can list its keys: for the key filter, and for loads at the start
//	Writer   an origin that accepts changes: write-through
//	Custom   an origin that the program implements itself
//	Keys     which keys may be requested at all
//	Policy   lifetimes, and the use of values after their end
//	Guard    concurrency, rate, breaker and retries before one origin
//
// Inputs are keys and settings. Outputs are values, lists of keys and errors that say
// whether a retry is useful.
//
// The package starts no goroutine.
//
// Package loader is not a cache: it keeps no value and collapses no loads (the sidecar
// does), and knows no other host. It does not talk to origins itself (the packages below
// it do), and reads no configuration file.
package loader
