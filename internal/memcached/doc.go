// Package memcached serves memcached's text protocol, with its meta commands, above the sessions of the
// socket's protocol. It follows doc/protocol.txt of memcached 1.6, and its program where that page
// leaves a choice.
//
// Input is the commands that server.Conn has read. Output is memcached's answers, in the
// order of the commands. A command becomes requests of package wire, which a session.Session
// executes and counts, with the rights and the share of the client; the form of the answer stays
// here.
//
//	Endpoint  what all connections have in common: namespaces, counters, and where a command ends (cut.go)
//	parse     which bytes stand for which command (parse.go, line.go, meta.go); allocates nothing
//	form      how the answer to a command looks (format.go), and what it says of a reply (answer.go)
//	handler   one connection: which requests a command becomes (read.go, write.go); one that must wait has
//	          its reader wait (wait.go)
//
// A connection has one goroutine. Reads of one key that follow each other, and must wait, are asked
// for together, by one goroutine each, which end before the connection does. A flush_all with a
// delay has a timer, until Close.
//
// The package does not listen (package sidecar), decides nothing about values (package engine), and
// knows neither the binary protocol nor UDP.
package memcached
