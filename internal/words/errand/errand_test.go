package errand

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"reflect"
	"testing"
	"time"

	"fief/internal/words/fault"
)

func sample() *Errand {
	return &Errand{Verb: Create, Runtime: "/usr/bin/crun", Args: []string{"--debug", ""}, ID: "id", Root: "/r", Dir: "/d", Place: "/mnt",
		View: "/v", JSON: []byte("{}"), TTY: true, Stdio: [3]int32{-1, 0, 1}, Mounts: []Mount{{2, "rootfs"}, {3, "m/0"}}, Groups: []int32{1}, Limit: time.Minute}
}

func TestThereAndBack(t *testing.T) {
	for _, e := range []*Errand{sample(), {Verb: Delete, ID: "x"}} {
		got, err := Decode(e.Encode(), 4)
		if err != nil || !reflect.DeepEqual(got, e) {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

// TestLayout: whoever changes what is encoded raises Layout, by which builds know
// whether they carry out each other's errands.
func TestLayout(t *testing.T) {
	const layout, want = 1, "651db52bc4164d8781f5316aadddfa99045bee3405608e41f73eded544897aa9"
	got := fmt.Sprintf("%x", sha256.Sum256(sample().Encode()))
	if Layout != layout || got != want {
		t.Errorf("layout %d is %s, not %d, %s: raise Layout and say so here", Layout, got, layout, want)
	}
}

func TestSlotsAreThere(t *testing.T) {
	for _, files := range []int{0, 3} {
		if _, err := Decode(sample().Encode(), files); !fault.Is(err, fault.Corrupt) {
			t.Errorf("%d descriptors: %v", files, err)
		}
	}
}

// FuzzDecode: decoding ends, and what decodes is what was encoded.
func FuzzDecode(f *testing.F) {
	f.Add(sample().Encode())
	f.Add((&Errand{Verb: Exec}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Decode(b, 4)
		if err != nil {
			if !fault.Is(err, fault.Corrupt) {
				t.Errorf("error of class %v", fault.ClassOf(err))
			}
			return
		}
		if !bytes.Equal(e.Encode(), b) {
			t.Errorf("%x decodes to %+v, which encodes to %x", b, e, e.Encode())
		}
	})
}
