// Package memcached is memcached's text protocol, with its meta commands: which bytes stand
// for which command, and which for which answer. It follows doc/protocol.txt of memcached
// 1.6, and its program where that page leaves a choice.
//
// Input is the bytes that a client has sent, and the fields of an answer. Output is the
// length of the first request, a Command, or the bytes of an answer. The package is pure: it
// has no goroutines, does no I/O and reads no clock. Parsing allocates nothing; byte fields
// alias the input.
//
// The package does not execute commands (package endpoint), and knows neither the binary
// protocol nor UDP.
package memcached
