package logread

import (
	"bytes"
	"encoding/json"
	"time"

	"fief/internal/words/record"
)

// parse reads one record of either format that filelog writes. The text of a
// JSON record ends in a newline when its line does; of the other format the
// newline is that of the record.
func parse(raw []byte) (record.LogLine, bool) {
	raw = bytes.TrimLeft(raw, "\x00") // ext4 may leave zeroes for what was not on disk
	if len(raw) > 0 && raw[0] != '{' {
		return parseCRI(raw)
	}
	var rec struct {
		Log    *string           `json:"log"`
		Stream string            `json:"stream"`
		Time   time.Time         `json:"time"`
		Attrs  map[string]string `json:"attrs"`
	}
	if json.Unmarshal(raw, &rec) != nil || rec.Log == nil {
		return record.LogLine{}, false
	}
	return record.LogLine{At: rec.Time, Stream: rec.Stream, Text: []byte(*rec.Log), Attrs: rec.Attrs}, true
}

// parseCRI reads "TIME STREAM P|F TEXT\n"; further tags after the first, behind
// colons, are ignored (kubernetes cri-client/pkg/logs).
func parseCRI(raw []byte) (record.LogLine, bool) {
	stamp, rest, ok1 := bytes.Cut(raw, []byte{' '})
	stream, rest, ok2 := bytes.Cut(rest, []byte{' '})
	tags, text, ok3 := bytes.Cut(rest, []byte{' '})
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil || !ok1 || !ok2 || !ok3 || len(text) == 0 || text[len(text)-1] != '\n' {
		return record.LogLine{}, false
	}
	tag, _, _ := bytes.Cut(tags, []byte{':'})
	switch string(tag) {
	case "P":
		text = text[:len(text)-1]
	case "F":
	default:
		return record.LogLine{}, false
	}
	return record.LogLine{At: at, Stream: string(stream), Text: text}, true
}

// glance tells of a record, without parsing all of it, its stream and whether it
// ends a line.
func glance(rec []byte) (stream string, ends, ok bool) {
	if len(rec) == 0 || rec[len(rec)-1] != '\n' {
		return "", false, false
	}
	if start := bytes.TrimLeft(rec, "\x00"); len(start) > 0 && start[0] != '{' {
		l, ok := parseCRI(start)
		return l.Stream, ok && bytes.HasSuffix(l.Text, []byte{'\n'}), ok
	}
	i := bytes.Index(rec, []byte(`","stream":"`)) // the first: a label may be named stream
	if i < 0 {
		return "", false, false
	}
	name, _, _ := bytes.Cut(rec[i+len(`","stream":"`):], []byte{'"'})
	return string(name), endsLine(rec[:i]), true
}

// endsLine reports whether JSON text ends in an escaped newline, and not in an
// escaped backslash and an n.
func endsLine(text []byte) bool {
	if !bytes.HasSuffix(text, []byte(`\n`)) {
		return false
	}
	slashes := 0
	for i := len(text) - 2; i >= 0 && text[i] == '\\'; i-- {
		slashes++
	}
	return slashes%2 == 1
}
