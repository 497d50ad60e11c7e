package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	_ "embed"
)

//go:embed encodings.json
var encodingsFile []byte

// encoded is an example of the encodings of values: what bytes with flags decode to. Parts,
// in place of Hex, are for the file only.
type encoded struct {
	Flags uint32 `json:"flags"`
	Hex   string `json:"hex"`
	Parts []part `json:"parts,omitempty"`
	Value *value `json:"value,omitempty"`
	Error string `json:"error,omitempty"` // the kind of the error, in place of Value
}

// part is bytes that are repeated.
type part struct {
	Hex   string `json:"hex"`
	Count int    `json:"count"`
}

// encodings returns the examples. Those without Hex get the bytes that this program writes.
func encodings() (all []encoded, err error) {
	if err := json.Unmarshal(encodingsFile, &all); err != nil {
		return nil, fmt.Errorf("encodings.json: %w", err)
	}
	for i := range all {
		for _, p := range all[i].Parts {
			all[i].Hex += strings.Repeat(p.Hex, p.Count)
		}
		all[i].Parts = nil
		if e := &all[i]; e.Hex == "" && e.Value != nil {
			e.Value.spell()
			b, flags, err := e.Value.encode()
			if err != nil {
				return nil, fmt.Errorf("encodings.json, %d: %w", i, err)
			}
			e.Hex, e.Flags = hex.EncodeToString(b), e.Flags&^0xff|flags
		}
	}
	return all, nil
}
