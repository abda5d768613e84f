package wire

import (
	"bytes"

	"fief/internal/words/record"
)

// AppendChange appends a change to the body of Data: its kind, its path and a
// NUL. Paths are any bytes, which JSON has not.
func AppendChange(b []byte, c record.Change) []byte {
	b = append(b, byte(c.Kind))
	return append(append(b, c.Path...), 0)
}

// ReadChanges calls each for the changes in a body that AppendChange made.
func ReadChanges(b []byte, each func(record.Change)) error {
	for len(b) > 0 {
		kind := record.ChangeKind(b[0])
		path, rest, ok := bytes.Cut(b[1:], []byte{0})
		if !ok || len(path) == 0 || kind > record.Deleted {
			return broken("no change of a file")
		}
		each(record.Change{Kind: kind, Path: string(path)})
		b = rest
	}
	return nil
}
