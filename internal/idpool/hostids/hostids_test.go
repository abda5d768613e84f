package hostids

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

func TestUsersAndLines(t *testing.T) {
	f := newAccounts(t)
	write(t, f.SubUID, "ann:200000:1000\n1001:300000:65536\n# comment\nghost:1:0\nann:4294967290:10\n")
	got := facts(t, f)
	want(t, shown(f, got.Claims, "user"), `0-1 gid user root group:1
0-1 uid user root passwd:1
0-1 uid user toor passwd:2
1000-1001 gid user ann group:2
1000-1001 uid user ann passwd:4
1001-1002 gid user bob group:3
1001-1002 uid user bob passwd:5
1002-1003 uid user eve passwd:6
50-51 gid user staff group:4
`)
	want(t, shown(f, got.Claims, "subid"), `200000-201000 uid subid ann subuid:1
300000-365536 uid subid bob subuid:2
500000-565536 gid subid bob subgid:1
600000-665536 gid subid ann subgid:2
`)
	want(t, strings.Join(got.Owners, " "), "ann bob ghost")
	want(t, strings.Join(got.Warnings, "\n"), "line 4 of "+f.SubUID+" of user ghost is not used: its count is zero\n"+
		"line 5 of "+f.SubUID+" of user ann is not used: its ids go past 4294967294")
}

func TestAccountsThatCannotBeRead(t *testing.T) {
	for i := range 4 {
		for name, spoil := range map[string]func(path string) error{
			"pipe":      func(path string) error { return unix.Mkfifo(path, 0o600) },
			"directory": func(path string) error { return os.Mkdir(path, 0o700) },
			"loop":      func(path string) error { return os.Symlink(path, path) },
		} {
			f := newHost(t)
			path := [...]string{f.SubUID, f.SubGID, f.Passwd, f.Group}[i]
			if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			if err := spoil(path); err != nil {
				t.Fatal(err)
			}
			if _, err := f.Read(t.Context()); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s %s: %v", name, path, err)
			}
		}
	}
}

func TestSignatureNoticesEngines(t *testing.T) {
	f := newAccounts(t)
	for _, dir := range []string{kubeletPods, containersRoot + "/overlay-containers", dockerRoot, lxcRoot, machinesRoot} {
		if err := os.MkdirAll(f.below(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w := f.Watch()
	before := w.Signature()
	if w.Signature() != before {
		t.Fatal("it changes by itself")
	}
	for _, path := range []string{f.SubUID, f.SubGID, f.Passwd, f.Group, f.NSSwitch, f.below(kubeletPods + "/a/userns"),
		f.below(containersRoot + "/overlay-containers/containers.json"), f.below(dockerRoot + "/1.1/x"), f.below(lxcRoot + "/a/config"), f.below(machinesRoot + "/a/x"),
	} {
		time.Sleep(20 * time.Millisecond) // the kernel's clock for files ticks every few
		write(t, path, "changed")
		after := w.Signature()
		if after == before {
			t.Errorf("%s has changed and the signature has not", path)
		}
		before = after
	}
}

func TestLive(t *testing.T) {
	f := newHost(t)
	process(t, f, 7, "0 300000 10\n1000 1000 1\n", "0 400000 20\n")
	process(t, f, 8, "0 0 4294967295\n", "0 0 4294967295\n")
	process(t, f, 9, "garbage", "0 4294967290 100\n")
	write(t, filepath.Join(f.Proc, "self", "uid_map"), "0 1 1\n")
	if os.Geteuid() == 0 {
		for _, pid := range []string{"7", "9"} {
			if err := os.Chown(filepath.Join(f.Proc, pid), 70000, 70001); err != nil {
				t.Fatal(err)
			}
		}
	}
	claims, err := f.Live()
	if err != nil {
		t.Fatal(err)
	}
	got := show(claims)
	for _, line := range []string{"300000-300010 uid process command 7 pid 7\n", "400000-400020 gid process command 7 pid 7\n", "4294967290-4294967296 gid process command 9 pid 9\n"} {
		if !strings.Contains(got, line) {
			t.Errorf("no %sin\n%s", line, got)
		}
	}
	if n := len(claims); os.Geteuid() == 0 && n != 3+2+2 {
		t.Errorf("%d claims:\n%s", n, got)
	}
	if _, err := (Files{Proc: filepath.Join(f.Proc, "none")}).Live(); !fault.Is(err, fault.Unavailable) {
		t.Error(err)
	}
}

// TestLiveHere looks at the real processes: this one's own namespace claims
// nothing, its user does.
func TestLiveHere(t *testing.T) {
	claims, err := Files{}.Live()
	if err != nil {
		t.Fatal(err)
	}
	euid := uint64(os.Geteuid())
	for _, c := range claims {
		if c.UID && c.From <= euid && euid < c.To && strings.HasPrefix(c.Source, "pid ") && c.Holder != "" {
			return
		}
	}
	t.Errorf("nobody has uid %d:\n%s", euid, show(claims))
}
