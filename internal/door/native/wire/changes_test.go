package wire

import (
	"bytes"
	"testing"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

func FuzzChanges(f *testing.F) {
	f.Add(AppendChange(AppendChange(nil, record.Change{Kind: record.Deleted, Path: "/a\n\xff"}), record.Change{Path: "/b"}))
	f.Add([]byte{3, 'x', 0})
	f.Add([]byte{0, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		var again []byte
		err := ReadChanges(b, func(c record.Change) { again = AppendChange(again, c) })
		if err == nil && !bytes.Equal(b, again) || err != nil && !fault.Is(err, fault.Corrupt) {
			t.Errorf("%q became %q, %v", b, again, err)
		}
	})
}
