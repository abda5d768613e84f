package image

import (
	"bytes"
	"io"
	"testing"

	"fief/internal/image/registrytest"
)

// FuzzFraming: a stream of gzip or zstd that was changed or cut anywhere ends
// with an error, or has the very content that its digest says.
func FuzzFraming(f *testing.F) {
	for _, zst := range []bool{false, true} {
		f.Add([]byte("some text, some text, some text"), zst, uint16(3), byte(0x55), uint16(0), []byte(nil))
		f.Add([]byte("text"), zst, uint16(9), byte(1), uint16(4), []byte("after"))
		f.Add([]byte{}, zst, uint16(0), byte(0), uint16(0), []byte{0x1f, 0x8b, 8, 0})
	}
	f.Fuzz(func(t *testing.T, content []byte, zst bool, at uint16, with byte, cut uint16, more []byte) {
		raw := registrytest.Gzip(content)
		if zst {
			raw = registrytest.Zstd(content)
		}
		raw[int(at)%len(raw)] ^= with
		raw = append(raw[:len(raw)-int(cut)%len(raw)], more...)
		r, _, err := plainTar(t.Context(), bytes.NewReader(raw), nil)
		if err != nil {
			return
		}
		defer r.Close()
		got, err := io.ReadAll(io.LimitReader(newChecked(r, digestOf(content)), 16<<20))
		if err == nil && len(got) < 16<<20 && !bytes.Equal(got, content) {
			t.Fatalf("%q became %q", content, got)
		}
	})
}
