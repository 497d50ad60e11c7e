package wire

//lint:file-ignore U1000 the fields _msgpack are there for their tags

// MaxVerify is the maximum duration of VERIFY, in milliseconds.
const MaxVerify = 10 * 60 * 1000

// Probe asks another sidecar to read a key of VERIFY as one of its apps would.
type Probe struct {
	_msgpack struct{} `msgpack:",as_array"`

	Key   []byte
	Fresh bool
}

// Probed is the answer to PROBE.
type Probed struct {
	_msgpack struct{} `msgpack:",as_array"`

	Status uint8
	Value  []byte
	Source uint8
}
