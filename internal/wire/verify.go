package wire

// MaxVerify is the maximum duration of VERIFY, in milliseconds.
const MaxVerify = 10 * 60 * 1000

// Probe asks another sidecar to read a key of VERIFY as one of its apps would.
type Probe struct {
	Key   []byte
	Fresh bool
}

// Probed is the answer to PROBE.
type Probed struct {
	Status uint8
	Value  []byte
	Source uint8
}
