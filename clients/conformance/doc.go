// Command conformance holds a client of any language to the protocol. It starts a real
// sidecar, scripted servers and proxies, runs the client's own tests against them, and says
// what the servers saw.
//
//	go run . [-players N] [-ticks LIST] [-only NAME] [-v] -- COMMAND ARGS…
//
// Its input are the files in conversations: what a client is to call, and what the server at
// the other end wants and answers. It writes them as a manifest, whose path the command finds
// in $CONFORMANCE; README.md describes it. Its output is a line for all conversations,
// or what was wanted and what came for each that failed, and an exit status.
//
// A scripted server has a goroutine that accepts, and two for each connection: one reads, one
// plays the script. A proxy has one that accepts and two for each connection. All end when
// the command has ended.
//
// It is no client: the command makes the calls and compares the results. The Go client is
// played by this package's test. It is no test of the sidecar either.
package main
