// Package quota bounds what requests under way use of a host, and shares it out.
//
// Memory is one Budget, with an Account for each connection, below the account of the process at its
// other end, which is below that of its tenant: a user of this host, or another host. It can be taken
// back. Everything that is counted is Places, with a Client for each connection; places come back
// when their requests end. Input is how much is wanted; output is that it is charged, or the error
// BUSY.
//
//	Budget      the memory, in fair shares; what it takes back from the largest user
//	AnswerShare the memory of one connection's answers
//	Held        the memory of one request that waits
//	Sent        the bytes on their way to one host, by the process that they are sent for
//	Buffers     the buffers of long frames, for reuse
//	copies      whose turn it is to copy many bytes
//	FairQueue   a queue in which tenants take turns
//	MayHold     the rule of the last places, for package loader too
//	Places      the counted resources
//
// The package starts no goroutine. No call waits but BeginTurn and Held.Copy. All functions may be
// called concurrently, but those of FairQueue and Sent.
package quota
