package httporigin

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxTTL is one year. Longer lifetimes are reduced to it.
const maxTTL = 365 * 24 * time.Hour

// lifetime reads Cache-Control as a shared cache does (RFC 9111). If the header has no
// lifetime, ttl is zero: the namespace's TTL.
func lifetime(h http.Header) (ttl time.Duration, noStore bool) {
	maxAge, shared := int64(-1), int64(-1)
	for _, field := range h.Values("Cache-Control") {
		for directive := range strings.SplitSeq(field, ",") {
			name, arg, _ := strings.Cut(strings.TrimSpace(directive), "=")
			switch strings.ToLower(name) {
			case "no-store", "no-cache", "private":
				noStore = true
			case "max-age":
				maxAge = seconds(arg)
			case "s-maxage":
				shared = seconds(arg)
			}
		}
	}
	if shared >= 0 {
		maxAge = shared
	}
	if noStore || maxAge < 0 {
		return 0, noStore
	}
	left := maxAge
	if age := h.Get("Age"); age != "" {
		left -= max(0, seconds(age))
	}
	if left <= 0 {
		return 0, true
	}
	return time.Duration(left) * time.Second, false
}

// seconds reads a number of seconds, at most maxTTL. An invalid number is zero: such a
// directive is best treated as already expired (RFC 9111, 4.2.1).
func seconds(s string) int64 {
	n, err := strconv.ParseInt(strings.Trim(s, `"`), 10, 64)
	if errors.Is(err, strconv.ErrRange) && n > 0 {
		return int64(maxTTL / time.Second)
	}
	return min(max(n, 0), int64(maxTTL/time.Second))
}
