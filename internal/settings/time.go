package settings

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// day is the unit that time.ParseDuration does not know. It is 24 hours, also where a
// clock is changed.
const day = 24 * time.Hour

// days matches the parts of a time that are in days.
var days = regexp.MustCompile(`[0-9.]+d`)

// Time reads a time such as 500ms, 1h30m, 7d or 1d12h: the form of time.ParseDuration,
// and "d" for a day of 24 hours. It is the one parser of times that people write.
func Time(text string) (time.Duration, error) {
	d, ok := parseTime(text)
	if !ok {
		return 0, fmt.Errorf("time %q: give a time such as 500ms, 30s, 2h or 7d", text)
	}
	return d, nil
}

// parseTime adds up the parts in days and the parts between them.
func parseTime(text string) (sum time.Duration, ok bool) {
	if !strings.Contains(text, "d") {
		d, err := time.ParseDuration(text)
		return d, err == nil
	}
	sign, text, _ := cutSign(text)
	for text != "" {
		part, unit := text, time.Duration(1)
		if at := days.FindStringIndex(text); at != nil && at[0] == 0 {
			part, unit = text[:at[1]-1]+"h", day/time.Hour
			text = text[at[1]:]
		} else if at != nil {
			part, text = text[:at[0]], text[at[0]:]
		} else {
			text = ""
		}
		d, err := time.ParseDuration(part)
		if _, _, signed := cutSign(part); err != nil || signed || part == "0" || d > (math.MaxInt64-sum)/unit {
			return 0, false
		}
		sum += d * unit
	}
	return sign * sum, true
}

// cutSign takes the sign off a time.
func cutSign(text string) (sign time.Duration, rest string, signed bool) {
	if rest, ok := strings.CutPrefix(text, "-"); ok {
		return -1, rest, true
	}
	rest, ok := strings.CutPrefix(text, "+")
	return 1, rest, ok
}

// TimeText returns the shortest form of a time that Time reads: 7d, 1h30m, 0s.
func TimeText(d time.Duration) (text string) {
	if d <= 0 {
		return d.String()
	}
	for _, u := range []struct {
		unit string
		is   time.Duration
	}{{"d", day}, {"h", time.Hour}, {"m", time.Minute}} {
		if n := d / u.is; n > 0 {
			text += strconv.FormatInt(int64(n), 10) + u.unit
			d -= n * u.is
		}
	}
	if d > 0 {
		text += d.String()
	}
	return text
}
