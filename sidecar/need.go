package sidecar

// memorySizes is what the memory that a sidecar needs depends on: bytes, if nothing else is said.
type memorySizes struct {
	l1, l2, buffers, shared, filters int64

	feeds       int  // of changes
	connections int  // of apps
	tcp         bool // apps connect over TCP, too
}

// Parts of the memory that do not depend on the sizes, and what a connection takes at most.
const (
	restOfHeap   = 96 << 20  // of Go's heap: the process at rest, garbage, what batches need
	restOfKernel = 32 << 20  // the program, page tables, threads, sockets of HTTP, gossip and hosts
	feedOfHeap   = 40 << 20  // of Go's heap, for a feed: see docs/SECURITY.md, "postgres, a feed"
	connOfHeap   = 12 << 10  // of Go's heap, for a connection
	connOfKernel = 16 << 10  // a socket, and a send buffer that has not grown
	connReceived = 128 << 10 // what a socket has received, which over TCP is no memory of the app

	socketsPart = 4 // the part of buffers that send buffers may have grown by: see quota.SocketsPart
)

// sendBuffer is what SO_SNDBUF of an app's socket begins with, and receiveBuffer is SO_RCVBUF over
// TCP, in bytes. The kernel doubles both; the last message may exceed a send buffer by half.
const (
	sendBuffer    = 4 << 10
	receiveBuffer = connReceived / 2
)

// memoryFormula is memoryNeed.total in the words of the settings.
const memoryFormula = "l2_size + 2 × l1_size + 1.25 × buffer_size + shared_size + 28 KiB × connections + " +
	"2 × key filters + 40 MiB × feeds + 128 MiB"

// memoryNeed is the memory that a sidecar needs at most, in bytes.
type memoryNeed struct {
	heap   int64 // of Go's runtime, as debug.SetMemoryLimit counts
	mapped int64 // by the sidecar itself
	kernel int64 // and by the program
}

// total returns all of it: the limit that a process needs.
func (need memoryNeed) total() int64 { return need.heap + need.mapped + need.kernel }

// need returns the memory that a sidecar of these sizes needs. All limits come from here: the check
// at the start, Go's soft limit, and what docs/OPERATIONS.md and deploy/ state.
func (sizes memorySizes) need() memoryNeed {
	connections := int64(sizes.connections)
	n := memoryNeed{
		heap: 2*sizes.l1 + sizes.buffers + 2*sizes.filters + feedOfHeap*int64(sizes.feeds) +
			connOfHeap*connections + restOfHeap,
		mapped: sizes.l2 + sizes.shared,
		kernel: sizes.buffers/socketsPart + connOfKernel*connections + restOfKernel,
	}
	if sizes.tcp {
		n.kernel += connReceived * connections
	}
	return n
}

// fit returns for how many connections of apps so many bytes are enough, up to s.connections.
// It returns zero if they are not enough for the least number of connections.
func (sizes memorySizes) fit(have int64, least int) int {
	with := func(n int) int64 { s := sizes; s.connections = n; return s.need().total() }
	fit := min(int64(sizes.connections), (have-with(0))/(with(1)-with(0)))
	if fit < int64(min(sizes.connections, least)) {
		return 0
	}
	return int(fit)
}
