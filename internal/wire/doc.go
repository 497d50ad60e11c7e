// Package wire encodes and decodes the messages of the protocol. It does no I/O, starts
// no goroutine and reads no clock. Bytes in a decoded message alias the frame that they
// were decoded from.
//
// # Frame
//
//	┌──────────────┬──────────────────────────┐
//	│ length       │ one msgpack array        │
//	│ uint32, big  │ of length bytes          │
//	│ endian       │                          │
//	└──────────────┴──────────────────────────┘
//
// A request is [id, op, timeout_ms, …], an answer is [id, status, …]. The client chooses
// the id. A nil element, or an element left out at the end of a request, has its
// default. A request with more elements than its op takes is refused. A client must skip
// further elements of an answer.
//
// # Requests, after [id, op, timeout_ms
//
//	 1 HELLO    {v, client, token, ns}
//	 2 PING
//	 3 GET      ns, key, options
//	 4 MGET     ns, [key…], options
//	 5 SET      ns, key, value, ttl_ms, flags, mode, compare, options, until_ns
//	 6 DELETE   ns, [key…], options, replica_lag_ms, until_ns, compare, stale_ms
//	 7 TOUCH    ns, key, ttl_ms, options, until_ns
//	 8 INCR     ns, key, delta, initial, ttl_ms, options, until_ns, compare
//	 9 LEASE    ns, key, options
//	10 FILL     ns, key, token, value, ttl_ms, flags, options, until_ns
//	11 FLUSH    ns, options
//	12 STATS    options
//	13 MEMBERS
//	14 RING     ns, key
//	15 WATCH    ns, options, epoch, seq, wait_ms
//	16 VERIFY   duration_ms
//	17 FORGET   node
//	20 KEYS     ns, prefix, cursor, limit
//	21 HOT      ns, n, options
//	22 SLOW     ns, n, options
//	25 HITS     ns, [key…], shared, absent, near, options
//	26 METAGET  ns, key, ttl_ms, options, until_ns, lease_ms, renew_ms
//
// # Answers, after [id, status
//
//	OK       of GET, LEASE   value, flags, version, ttl_ms, source, age_ms;
//	                         if attested also as_of, owner, epoch
//	OK       of MGET         [[status, … like the answer to GET]…]
//	OK       of SET, FILL, FLUSH   version
//	OK       of TOUCH        version, event
//	OK       of INCR         number, version, ttl_ms
//	OK       of METAGET      value, flags, version, ttl_ms, size, read, idle_ms, claim, number, event
//	OK       of DELETE       [[status, version]…]
//	OK       of HELLO, STATS, MEMBERS, RING, WATCH, VERIFY, KEYS, HOT, SLOW   a map or an array of maps
//	OK       of PING, FORGET, HITS nothing
//	STALE    like OK of GET
//	MISS     why; if attested also version, ttl_ms, as_of, owner, epoch;
//	         in the items of DELETE: version; of METAGET: why, claim, number, ttl_ms
//	LEASE    token, ttl_ms
//	EXISTS   version
//	NOT_STORED and errors    message
//
// GET, MGET, SET and DELETE, and the messages of the same shape, are encoded and decoded
// without allocation, with the byte-slice functions of tinylib/msgp. The other bodies are coded
// by the types of their fields, in schema: a library's decoder accepts nil for an empty text and
// truncates numbers. checkMsgpack checks each body first: a frame of 8 MiB of nested arrays would
// crash a decoder that recurses. Tests compare the bytes with those of vmihailenco/msgpack.
//
// docs/PROTOCOL.md is the specification for clients. testdata/messages.json has golden
// bytes for every message.
package wire
