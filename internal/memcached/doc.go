// Package memcached serves memcached's text protocol, with its meta commands, above the sessions of the
// socket's protocol. It follows doc/protocol.txt of memcached 1.6, and its program where that page
// leaves a choice.
//
// Input is the commands that server.Conn has read. Output is memcached's answers, in the
// order of the commands. A command becomes requests of package wire, which a session.Session
// executes and counts, with the rights and the share of the client; the form of the answer stays
// here.
//
//	Endpoint      what all connections of the endpoint have in common: namespaces, counters, and where
//	              a command ends (cut.go)
//	Parse         which bytes stand for which command (line.go, parse.go, meta.go); allocates nothing
//	ReplyFormat   which bytes stand for which answer (format.go)
//	handler       one connection; a command that must wait has its reader wait
//	answerForm    how the answer to a command looks
//
// A connection has one goroutine. Reads of one key that follow each other, and must wait, are asked
// for together, by one goroutine each, which end before the connection does. A flush_all with a
// delay has a timer, until Close.
//
// The package does not listen (package sidecar), decides nothing about values (package engine), and
// knows neither the binary protocol nor UDP.
package memcached
