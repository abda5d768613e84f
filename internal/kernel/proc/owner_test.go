package proc

import (
	"os"
	"testing"

	"fief/internal/words/fault"
)

func TestOwner(t *testing.T) {
	uid, gid, name, err := Owner(os.Getpid())
	if err != nil || uid != uint32(os.Geteuid()) || gid != uint32(os.Getegid()) || name == "" {
		t.Errorf("%d:%d %q %v", uid, gid, name, err)
	}
	if _, _, _, err := Owner(1 << 30); !fault.Is(err, fault.NotFound) {
		t.Errorf("nobody: %v", err)
	}
}

func FuzzParseOwner(f *testing.F) {
	f.Add([]byte("Name:\tsh\nUid:\t0\t101\t0\t0\nGid:\t0\t102\t0\t0\n"))
	f.Add([]byte("Name:\nUid:\t0\nGid: x y\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		uid, gid, _, err := parseOwner(text)
		if err != nil && (uid != 0 || gid != 0) {
			t.Error("ids beside an error")
		}
	})
}
