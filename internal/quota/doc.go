// Package quota bounds what requests under way use of a host, and shares it out.
//
// It is one Budget, with an Account for each connection, below the account of the process at its
// other end, which is below that of its tenant: a user of this host or of another one, or another host. An account
// counts memory, which can be taken back, and places of each Resource, which come back
// when their requests end. Input is how much is wanted; output is that it is charged, or the error
// BUSY.
//
//	Budget      the memory and the places, in fair shares; what it takes back from the largest user
//	Account     what a connection, a process or a tenant holds
//	App         a process of a user, by the number that other hosts are told
//	AnswerShare the memory of one connection's answers
//	Held        the memory of one request that waits
//	Sent        the bytes on their way to one host, by the process that they are sent for
//	Buffers     the buffers of long frames, for reuse
//	Turn        whose turn it is to copy many bytes
//	Window      how much work of requests that cannot be answered in place is under way, and whose turn it is
//	FairQueue   a queue in which tenants take turns; AccountQueue: and processes within them
//	Resource    a kind of place
//	OldestOfMost which of a few strangers makes room for one more
//	Last        the rule of the last places, for package loader too
//
// The package starts no goroutine; a timer of Window's may begin requests. No call waits but BeginTurn, Window.Wait and
// Held.Copy. All functions may be called concurrently, but those of FairQueue, AccountQueue and Sent.
package quota
