// Package simnet is a network of hosts in memory, for tests that run in virtual time
// (testing/synctest).
//
// Inputs are what processes send, and faults: cut links, loss, delay, and killed or
// stopped processes. Outputs are net.Listener, net.Conn and memberlist.Transport. They
// behave like the system's wherever a program can see a difference: deadlines, end of
// stream, reset, refusal, a bounded window, bytes that wait while a link is cut and
// arrive after it heals, datagrams that get lost and overtake each other. Streams of a host to
// itself arrive at once.
//
// A Host is a process on a machine, not the machine. After Kill, the remaining goroutines
// of the process can do nothing through its Host, and Net.Host returns its successor at
// the same address.
//
// Goroutines: none. All work runs in the caller's goroutine or in a timer's, and a
// goroutine that waits is durably blocked in the sense of synctest. One seed gives one
// sequence of delays and losses, as long as goroutines run in the same order.
//
// The package does not model throughput, routes, TCP timeouts (a connection survives any
// cut) or name resolution.
package simnet
