package probe

import (
	"os"
	"strings"
	"testing"

	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/kernel/userns"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

func TestMain(m *testing.M) { os.Exit(mnttest.Main(m)) }

func TestTry(t *testing.T) {
	for class, want := range map[fault.Class]Verdict{
		fault.Unsupported: No, fault.Denied: No, fault.Exhausted: Unknown, fault.Internal: Unknown, fault.Corrupt: Unknown,
	} {
		a := Try("flying", "9.9", func() error { return fault.New(class, "fly", "", "no wings", "") })
		if a.Verdict != want || !strings.Contains(a.Why(), "no wings") {
			t.Errorf("%s: %s, %s", class, a.Verdict, a.Why())
		}
	}
	if a := Try("walking", "0.1", func() error { return nil }); a.Verdict != Yes || a.Why() != "" {
		t.Errorf("%+v", a)
	}
}

func TestIdmap(t *testing.T) {
	mnttest.NeedRoot(t)
	pair, err := idmap.Range(100000, 65536)
	if err != nil {
		t.Fatal(err)
	}
	ns, err := userns.New(pair)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	for path, want := range map[string]Verdict{t.TempDir(): Yes, "/proc": No} {
		dir, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if a := Idmap(dir, ns); a.Verdict != want {
			t.Errorf("%s: %s, %v", path, a.Verdict, a.Err)
		}
		dir.Close()
	}
}
