package settings

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestTime(t *testing.T) {
	for _, tc := range []struct {
		text string
		want time.Duration
	}{
		{"0", 0}, {"500ms", 500 * time.Millisecond}, {"1h30m", 90 * time.Minute}, {"+5s", 5 * time.Second},
		{"7d", 168 * time.Hour}, {"1d12h", 36 * time.Hour}, {"1.5d", 36 * time.Hour}, {"0d", 0}, {".5d", 12 * time.Hour},
		{"-1d", -24 * time.Hour}, {"-1d12h", -36 * time.Hour}, {"12h1d", 36 * time.Hour}, {"1d1d", 48 * time.Hour},
		{"1d1ns", day + 1}, {"106751d", 106751 * day}, {"365d", 8760 * time.Hour}, {"1h1.5d2m", 37*time.Hour + 2*time.Minute},
	} {
		if got, err := Time(tc.text); got != tc.want || err != nil {
			t.Errorf("%q: %v, %v, want %v", tc.text, got, err, tc.want)
		}
	}
	for _, text := range []string{
		"", "5", "d", "7 d", "7D", "1w", "--1d", "+-1d", "1.2.3d", ".d", "106752d", "99999999999999999999d", "1d-1h", "1d h",
		"106751d24h", "soon", "-", "1d5", "5d5", "d5s", "1dd", "1.d.", "1d0", "1m3ds", "01d5",
	} {
		if got, err := Time(text); err == nil || !strings.Contains(err.Error(), `": give a time such as 500ms, 30s, 2h or 7d`) {
			t.Errorf("%q: %v, %v, want an error with the remedy", text, got, err)
		}
	}
}

func TestTimeText(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s": 0, "7d": 168 * time.Hour, "1d12h": 36 * time.Hour, "1h": time.Hour, "1h30m": 90 * time.Minute, "10m": 10 * time.Minute,
		"500ms": 500 * time.Millisecond, "1d1s": day + time.Second, "1h1s": time.Hour + time.Second, "20s": 20 * time.Second,
		"-1h0m0s": -time.Hour, "1d10m": day + 10*time.Minute, "365d": 8760 * time.Hour,
	} {
		if got := TimeText(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

// FuzzTime checks that Time agrees with time.ParseDuration on all that both know, that it
// takes nothing else but days, and that TimeText gives a form that reads back.
func FuzzTime(f *testing.F) {
	for _, seed := range []string{"7d", "1d12h", "-1.5d3ms", "1h30m", "0", "5", "1dd", "106751d23h47m16.854775807s"} {
		f.Add(seed, int64(len(seed)))
	}
	f.Fuzz(func(t *testing.T, text string, n int64) {
		got, err := Time(text)
		want, e := time.ParseDuration(text)
		switch {
		case e == nil && want == math.MinInt64: // has no positive counterpart
		case e == nil && (err != nil || got != want):
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		case e != nil && err == nil && !strings.Contains(text, "d"):
			t.Errorf("%q: %v, and time.ParseDuration says %v", text, got, e)
		}
		for _, d := range []time.Duration{got, time.Duration(n)} {
			if back, err := Time(TimeText(d)); d != math.MinInt64 && (back != d || err != nil) {
				t.Errorf("%v is written as %s, and reads back as %v, %v", d, TimeText(d), back, err)
			}
		}
	})
}
