package httporigin

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/cachesidecar/cachesidecar/loader"
)

// acceptEncoding is the header that says which encodings of a body are decoded.
const acceptEncoding = "Accept-Encoding"

// decoded returns the body of an answer, without the encoding that was asked for, and how many bytes it
// has; below zero: it is not known. Any other encoding is refused: the value is kept for apps, and they
// would not learn of it.
func (s *Source) decoded(resp *http.Response) (body io.Reader, length int, err error) {
	var codings []string
	for _, field := range resp.Header.Values("Content-Encoding") {
		for coding := range strings.SplitSeq(field, ",") {
			switch coding = strings.ToLower(strings.TrimSpace(coding)); coding {
			case "", "identity":
			case "x-gzip": // RFC 9110: the same
				codings = append(codings, "gzip")
			default:
				codings = append(codings, coding)
			}
		}
	}
	asked := s.header.Get(acceptEncoding)
	switch {
	case len(codings) == 0:
		return resp.Body, int(resp.ContentLength), nil
	case len(codings) > 1 || codings[0] != asked:
		return nil, 0, fmt.Errorf("%w: the body has Content-Encoding %.100q, and %s was asked for: "+
			"have the server heed Accept-Encoding", loader.ErrPermanent, strings.Join(codings, ", "), asked)
	}
	unzipped, err := gzip.NewReader(resp.Body)
	switch {
	case err == nil:
		return unzipped, -1, nil
	case errors.Is(err, io.EOF) && !unbounded(resp): // there is no body, as after HEAD
		return http.NoBody, 0, nil
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return nil, 0, err
}

// unbounded reports whether nothing but the end of the connection shows the end of the body.
func unbounded(resp *http.Response) bool {
	return resp.ContentLength < 0 && len(resp.TransferEncoding) == 0 && resp.ProtoMajor < 2
}

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
