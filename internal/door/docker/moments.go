package docker

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// parseTime reads a point in time as the clients send it: seconds since 1970
// with up to nine decimals, RFC 3339, or a duration before now ("10m").
// Empty and 0 are the zero time: no bound.
func parseTime(key, s string) (time.Time, error) {
	if s == "" || s == "0" {
		return time.Time{}, nil
	}
	if t, ok := unixTime(s); ok {
		return t, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return time.Now().Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, invalid("invalid value for %q: %q is no time", key, s)
}

func unixTime(s string) (time.Time, bool) {
	whole, frac, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || len(frac) > 9 || sec > math.MaxInt32<<8 || sec < math.MinInt32 {
		return time.Time{}, false
	}
	nano, err := strconv.ParseUint("0"+frac+strings.Repeat("0", 9-len(frac)), 10, 64)
	if err != nil {
		return time.Time{}, false
	}
	if sec == 0 && nano == 0 {
		return time.Time{}, true
	}
	return time.Unix(sec, int64(nano)), true
}

// stamp prints a time as inspect shows it; the zero time is
// 0001-01-01T00:00:00Z, which clients read as "never".
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
