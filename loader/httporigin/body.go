package httporigin

import (
	"io"

	"github.com/cachesidecar/cachesidecar/loader"
)

// readBody reads a body to its end, or up to most bytes. The memory is charged to reserved before it is
// used. announced is how many bytes the body is said to have; below zero: it is not known.
func readBody(r io.Reader, announced, most int, reserved *loader.Reservation) ([]byte, error) {
	const least = 512
	size := min(max(announced+1, least), most) // one byte more: the end is found without another buffer
	if err := reserved.Take(size); err != nil {
		return nil, err
	}
	b := make([]byte, 0, size)
	for len(b) < most {
		if len(b) == cap(b) {
			size := min(2*cap(b), most)
			if err := reserved.Take(size); err != nil {
				return nil, err
			}
			b = append(make([]byte, 0, size), b...)
		}
		n, err := r.Read(b[len(b):cap(b)])
		if b = b[:len(b)+n]; err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
	}
	return b, nil
}
