package shm

import "unsafe"

// wordsAsBytes returns the bytes of words.
func wordsAsBytes(w []uint64) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(&w[0])), 8*len(w)) }
