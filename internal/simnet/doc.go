// Package simnet is a network of hosts in memory, for tests that run in virtual
// time (testing/synctest).
//
// Inputs are what processes send, and faults: links that are cut, loss, delay,
// processes that are killed or stand still. Outputs are net.Listener, net.Conn and
// memberlist.Transport, which behave as those of the system do where programs
// can tell: deadlines, end of stream, reset, refusal, a bounded window, bytes
// that wait while a link is cut and come when it is whole again, datagrams that
// get lost and overtake each other.
//
// A Host is a process on a machine rather than the machine: when it is killed,
// what is left of its goroutines can do no more, and Net.Host gives its
// successor at the same address.
//
// Goroutines: none. Everything happens in the caller's goroutine or in a
// timer's, and whoever waits is durably blocked, as synctest has it. One seed
// gives one sequence of delays and losses, as far as goroutines run in the same
// order.
//
// It is not a model of throughput, of routes, of TCP's giving up (a connection
// outlasts any cut) or of name resolution.
package simnet
