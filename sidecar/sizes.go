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

func (size Size) String() string {
	if size == Off {
		return "off"
	}
	if size < 0 {
		return strconv.FormatInt(int64(size), 10) + " B"
	}
	return humanize.IBytes(uint64(size))
}

// Text returns the size without loss, with the largest unit that fits: 64MiB.
func (size Size) Text() string {
	if size == Off {
		return "off"
	}
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for size != 0 && size%1024 == 0 && i < len(units)-1 {
		size, i = size/1024, i+1
	}
	return strconv.FormatInt(int64(size), 10) + units[i]
}

// UnmarshalText reads a size.
func (size *Size) UnmarshalText(text []byte) error {
	t := strings.TrimSpace(string(text))
	if t == "off" {
		*size = Off
		return nil
	}
	if strings.HasPrefix(t, "-") {
		return fmt.Errorf("size %q is negative", t)
	}
	n, err := humanize.ParseBytes(t)
	if err != nil || n > 1<<62 {
		return fmt.Errorf("size %q: give a number and a unit, such as 64MiB or 1GiB", t)
	}
	*size = Size(n)
	return nil
}

// Set reads a size; with it a *Size is a flag.Value.
func (size *Size) Set(text string) error { return size.UnmarshalText([]byte(text)) }

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

func (mode FileMode) String() string { return fmt.Sprintf("%04o", uint32(mode)) }

// UnmarshalText reads a mode.
func (mode *FileMode) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 8, 32)
	if err != nil || n > 0o777 {
		return fmt.Errorf("mode %q: give octal permission bits, such as 0660", text)
	}
	*mode = FileMode(n)
	return nil
}

// Set reads a mode; with it a *FileMode is a flag.Value.
func (mode *FileMode) Set(text string) error { return mode.UnmarshalText([]byte(text)) }

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
