package main

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// manifest is what the command finds in $CONFORMANCE.
type manifest struct {
	Sidecar       string    `json:"sidecar"`  // the real one's socket
	Messages      string    `json:"messages"` // golden bytes of the protocol
	Regions       string    `json:"regions"`  // golden bytes of the shared memory
	Encodings     []encoded `json:"encodings"`
	Conversations []played  `json:"conversations"`
}

// played is a conversation in the manifest.
type played struct {
	Name    string   `json:"name"`
	About   string   `json:"about"`
	Sockets []string `json:"sockets"` // one for each player
	Client  settings `json:"client"`
	Calls   [][]step `json:"calls"` // one list for each player
}

// write writes the manifest into a file.
func (m *manifest) write(file string) error {
	b, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o600)
}

// in returns a manifest without conversations. root is the folder of this module.
func (r *real) manifest(root string) (*manifest, error) {
	all, err := encodings()
	return &manifest{
		Sidecar:   r.socket,
		Messages:  filepath.Join(root, "internal", "wire", "testdata", "messages.json"),
		Regions:   filepath.Join(root, "internal", "shm", "testdata", "regions"),
		Encodings: all,
	}, err
}
