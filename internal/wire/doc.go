// Package wire turns bytes into messages and back. It is pure: no I/O, no
// goroutine, no clock. Bytes in a decoded message alias the frame that they
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
// A request is [id, op, timeout_ms, …], an answer [id, status, …]; the id is
// the client's. A nil, or an element left out at the end of a request, is that
// element's default. Requests with more elements than their op takes are
// refused; further elements of an answer are to be passed over.
//
// # Requests, after [id, op, timeout_ms
//
//	 1 HELLO    {v, client, token, ns}
//	 2 PING
//	 3 GET      ns, key, options
//	 4 MGET     ns, [key…], options
//	 5 SET      ns, key, value, ttl_ms, flags, mode, compare, options, until_ns
//	 6 DELETE   ns, [key…], options, hold_ms, until_ns
//	 7 TOUCH    ns, key, ttl_ms, options, until_ns
//	 8 INCR     ns, key, delta, initial, ttl_ms, options, until_ns
//	 9 LEASE    ns, key, options
//	10 FILL     ns, key, token, value, ttl_ms, flags, options, until_ns
//	11 FLUSH    ns, options
//	12 STATS    options
//	13 MEMBERS
//	14 RING     ns, key
//	15 WATCH    ns, options, epoch, seq, wait_ms
//
// # Answers, after [id, status
//
//	OK       of GET, LEASE   value, flags, version, ttl_ms, source, age_ms
//	OK       of MGET         [[status, … as of GET]…]
//	OK       of SET, FILL, TOUCH, FLUSH   version
//	OK       of INCR         number, version
//	OK       of DELETE       [[status, version]…]
//	OK       of HELLO, STATS, MEMBERS, RING, WATCH   a map or an array of maps
//	STALE    as OK of GET
//	MISS     why; of DELETE's items: version
//	LEASE    token, ttl_ms
//	EXISTS   version
//	NOT_STORED and errors    message
//
// GET, MGET, SET and DELETE, and whatever has their shape, are decoded and
// encoded without allocation, with the byte-slice functions of tinylib/msgp.
// Bodies that are maps go through vmihailenco/msgpack, and before that through
// Walk: its decoder recurses, and a frame of 8 MiB of nested arrays would end
// the process. Then each value must have the shape of its Go type: the decoder
// takes nil for an empty text, and cuts down numbers. Tests hold the one codec to
// the other, byte for byte.
//
// docs/PROTOCOL.md is the specification for clients; testdata/messages.json
// has golden bytes for every message.
package wire
