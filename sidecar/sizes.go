package sidecar

import (
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/cachesidecar/cachesidecar/internal/settings"
)

// Size is a number of bytes. Its text has a unit: 64MiB, 1GiB, 500kB; a plain
// number is bytes.
type Size int64

// Off is the size of something that is not wanted. Its text is "off".
const Off Size = math.MinInt64

func (s Size) String() string {
	if s == Off {
		return "off"
	}
	if s < 0 {
		return strconv.FormatInt(int64(s), 10) + " B"
	}
	return humanize.IBytes(uint64(s))
}

// Text returns the size without loss, with the largest unit that fits: 64MiB.
func (s Size) Text() string {
	if s == Off {
		return "off"
	}
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for s != 0 && s%1024 == 0 && i < len(units)-1 {
		s, i = s/1024, i+1
	}
	return strconv.FormatInt(int64(s), 10) + units[i]
}

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	t := strings.TrimSpace(string(text))
	if t == "off" {
		*s = Off
		return nil
	}
	if strings.HasPrefix(t, "-") {
		return fmt.Errorf("size %q is negative", t)
	}
	n, err := humanize.ParseBytes(t)
	if err != nil || n > 1<<62 {
		return fmt.Errorf("size %q: give a number and a unit, such as 64MiB or 1GiB", t)
	}
	*s = Size(n)
	return nil
}

// Set reads a size; with it a *Size is a flag.Value.
func (s *Size) Set(text string) error { return s.UnmarshalText([]byte(text)) }

// Percent is a share in per cent. Its text has the sign: 0.1%.
type Percent float64

func (p Percent) String() string { return strconv.FormatFloat(float64(p), 'g', -1, 64) + "%" }

// UnmarshalText reads a share.
func (p *Percent) UnmarshalText(text []byte) error {
	t := strings.TrimSpace(string(text))
	number, ok := strings.CutSuffix(t, "%")
	f, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if !ok || err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return fmt.Errorf("share %q: give a number and the sign, such as 0.1%%", t)
	}
	*p = Percent(f)
	return nil
}

// FileMode is permission bits. Its text is octal: 0660.
type FileMode fs.FileMode

func (m FileMode) String() string { return fmt.Sprintf("%04o", uint32(m)) }

// UnmarshalText reads a mode.
func (m *FileMode) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 8, 32)
	if err != nil || n > 0o777 {
		return fmt.Errorf("mode %q: give octal permission bits, such as 0660", text)
	}
	*m = FileMode(n)
	return nil
}

// Set reads a mode; with it a *FileMode is a flag.Value.
func (m *FileMode) Set(text string) error { return m.UnmarshalText([]byte(text)) }

// size returns v, or def if v is zero. If v is out of bounds, it returns def and an error.
func size(name string, v, def, least, most Size) (Size, error) {
	if v == 0 {
		v = def
	}
	if v < least || v > most {
		return def, settings.Problemf(name, "%s: give %s to %s", v, least, most)
	}
	return v, nil
}
