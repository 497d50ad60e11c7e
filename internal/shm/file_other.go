//go:build !linux

package shm

import (
	"errors"
	"os"
)

// Supported says that this system has no shared regions.
const Supported = false

var errNone = errors.New("shared memory needs Linux")

// File is a region's file.
type File struct {
	Path string
	ID   uint64
	mem  memory
}

// Create fails.
func Create(string, int64) (*File, error) { return nil, errNone }

// Open fails.
func (f *File) Open() (*os.File, error) { return nil, errNone }

// Used is always true.
func (f *File) Used() bool { return true }

// Remove does nothing.
func (f *File) Remove() error { return nil }

func unmap(memory) {}

// EndOthers finds none.
func EndOthers(string) (int, error) { return 0, nil }

// Possible fails.
func Possible(string) error { return errNone }

// Map fails.
func Map(*os.File) (*Reader, error) { return nil, errNone }
