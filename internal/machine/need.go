package machine

// Sizes is what the memory that a sidecar needs depends on: bytes, if nothing else is said.
type Sizes struct {
	L1, L2, Buffers, Shared, Filters int64

	Connections int  // of apps
	TCP         bool // apps connect over TCP, too
}

// Parts of the memory that do not depend on the sizes, and what a connection takes at most.
const (
	garbage  = 96 << 20  // of Go's heap: the process at rest, garbage, what batches need
	others   = 32 << 20  // the program, page tables, threads, sockets of HTTP, gossip and hosts
	ofHeap   = 12 << 10  // of Go's heap, for a connection
	ofKernel = 16 << 10  // a socket, and a send buffer that has not grown
	received = 128 << 10 // what a socket has received, which over TCP is no memory of the app

	socketsPart = 4 // the part of Buffers that send buffers may have grown by: see quota.SocketsPart
)

// SendBuffer is what SO_SNDBUF of an app's socket begins with, and ReceiveBuffer is SO_RCVBUF over
// TCP, in bytes. The kernel doubles both; the last message may exceed a send buffer by half.
const (
	SendBuffer    = 4 << 10
	ReceiveBuffer = received / 2
)

// Formula is Need.Total in the words of the settings.
const Formula = "l2_size + 2 × l1_size + 1.25 × buffer_size + shared_size + 28 KiB × connections + " +
	"2 × key filters + 128 MiB"

// Need is the memory that a sidecar needs at most, in bytes.
type Need struct {
	Heap   int64 // of Go's runtime, as debug.SetMemoryLimit counts
	Mapped int64 // by the sidecar itself
	Kernel int64 // and by the program
}

// Total returns all of it: the limit that a process needs.
func (n Need) Total() int64 { return n.Heap + n.Mapped + n.Kernel }

// Need returns the memory that a sidecar of these sizes needs. All limits come from here: the check
// at the start, Go's soft limit, and what docs/OPERATIONS.md and deploy/ state.
func (s Sizes) Need() Need {
	connections := int64(s.Connections)
	n := Need{
		Heap:   2*s.L1 + s.Buffers + 2*s.Filters + ofHeap*connections + garbage,
		Mapped: s.L2 + s.Shared,
		Kernel: s.Buffers/socketsPart + ofKernel*connections + others,
	}
	if s.TCP {
		n.Kernel += received * connections
	}
	return n
}

// Fit returns for how many connections of apps so many bytes are enough, up to s.Connections.
// It returns zero if they are not enough for the least number of connections.
func (s Sizes) Fit(have int64, least int) int {
	with := func(n int) int64 { s := s; s.Connections = n; return s.Need().Total() }
	fit := min(int64(s.Connections), (have-with(0))/(with(1)-with(0)))
	if fit < int64(min(s.Connections, least)) {
		return 0
	}
	return int(fit)
}
