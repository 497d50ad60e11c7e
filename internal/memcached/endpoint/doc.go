// Package endpoint serves memcached's text protocol, above the sessions of the socket's protocol.
//
// Input is the commands that server.Conn has read (Framing). Output is memcached's answers, in the
// order of the commands. A command becomes requests of package wire, which a session.Session
// executes and counts, with the rights and the share of the client; the form of the answer stays
// here. Package memcached has the bytes.
//
//	Endpoint what all connections of the endpoint have in common: namespaces, counters
//	handler  one connection; a command that must wait has its reader wait
//	answerForm how the answer to a command looks
//
// A connection has one goroutine. Reads of one key that follow each other, and must wait, are asked
// for together, by one goroutine each, which end before the connection does. A flush_all with a
// delay has a timer, until Close.
//
// The package does not listen (package sidecar) and decides nothing about values (package engine).
package endpoint
