package proc

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/words/fault"
)

func TestDescriptors(t *testing.T) {
	for _, words := range [][]string{{"user,huser", "pid"}, {"args"}} {
		if names, ok := Descriptors(words); !ok || !slices.Equal(names, strings.Split(strings.Join(words, ","), ",")) {
			t.Errorf("%q: %q, %v", words, names, ok)
		}
	}
	for _, words := range [][]string{nil, {"aux"}, {"user", "-e"}, {"user,"}, {"-o", "pid,comm"}, {"USER"}} {
		if names, ok := Descriptors(words); ok {
			t.Errorf("%q read as %q", words, names)
		}
	}
}

func TestDescribe(t *testing.T) {
	pid := sandbox(t, "sleep 60 & echo ready; exec sleep 62")
	for range 500 { // until the shell has become what it waits as
		if p, err := readProcess(pid); err == nil && p.comm == "sleep" && p.field(statState) == "S" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	pids, err := NamespacePids(pid)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, d := range descriptors() {
		all = append(all, d.name)
	}
	top, err := Describe(pid, append(pids, os.Getpid(), absent), all)
	if err != nil || len(top.Processes) != 2 || len(top.Titles) != len(all) {
		t.Fatalf("%+v, %v", top, err)
	}
	first := top.Processes[slices.IndexFunc(top.Processes, func(r []string) bool { return r[slices.Index(all, "pid")] == "1" })]
	inverse, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // 20 less the nice value that the sleeper inherits
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"user": "root", "huser": "700000", "group": "root", "hgroup": "700000", "hpid": strconv.Itoa(pid), "ppid": "0", "comm": "sleep",
		"args": "sleep 62", "state": "S", "nice": strconv.Itoa(20 - inverse), "capeff": "full", "capamb": "none", "seccomp": "disabled", "tty": "?",
	} {
		if got := first[slices.Index(all, name)]; got != want {
			t.Errorf("%s: %q, not %q", name, got, want)
		}
	}
	for _, row := range top.Processes {
		ppid, ns := row[slices.Index(all, "ppid")], row[slices.Index(all, "userns")]
		if n, err := strconv.ParseUint(ns, 10, 64); err != nil || n == 0 || slices.Contains(row, "") {
			t.Errorf("%q", row)
		}
		if row[slices.Index(all, "pid")] != "1" && ppid != "1" {
			t.Errorf("the child's parent is %q", ppid)
		}
	}
	if _, err := Describe(absent, nil, []string{"pid"}); !fault.Is(err, fault.NotFound) {
		t.Errorf("absent: %v", err)
	}
	if _, err := Describe(pid, pids, []string{"odd"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("unknown: %v", err)
	}
}

// A command's name and arguments are chosen by the container.
func TestDescribeShowsNoControls(t *testing.T) {
	pid := sandbox(t, `printf '\033[2J) S 1' > /proc/self/comm; echo ready; exec 2>/dev/null; while :; do read x < /proc/self/stat; sleep 1; done`)
	top, err := Describe(pid, []int{pid}, []string{"comm", "args", "ppid"})
	if err != nil || len(top.Processes) != 1 {
		t.Fatalf("%+v, %v", top, err)
	}
	if row := top.Processes[0]; row[0] != "?[2J) S 1" || strings.ContainsFunc(strings.Join(row, ""), func(r rune) bool { return r < ' ' }) {
		t.Errorf("%q", row)
	}
}

// What lies at /etc/passwd of a container may be anything.
func TestNamesOfHostileFiles(t *testing.T) {
	line := "web:x:101:101::/:/bin/sh\n"
	for name, c := range map[string]struct {
		make func(etc string) error
		want string // of uid 101
	}{
		"none":      {func(string) error { return nil }, ""},
		"plain":     {func(etc string) error { return os.WriteFile(etc+"/passwd", []byte("a:b\n\x00\n"+line), 0) }, "web"},
		"first":     {func(etc string) error { return os.WriteFile(etc+"/passwd", []byte(line+"late:x:101:101::/:\n"), 0o600) }, "web"},
		"fifo":      {func(etc string) error { return unix.Mkfifo(etc+"/passwd", 0o666) }, ""},
		"directory": {func(etc string) error { return os.Mkdir(etc+"/passwd", 0o777) }, ""},
		"loop":      {func(etc string) error { return os.Symlink("passwd", etc+"/passwd") }, ""},
		"inside":    {func(etc string) error { return twoSteps(etc, "/etc/real", "web:x:101:1::/:\n") }, "web"},
		"outside":   {func(etc string) error { return os.Symlink("../../../../../etc/passwd", etc+"/passwd") }, ""},
		"magic":     {func(etc string) error { return os.Symlink("/proc/self/fd/0", etc+"/passwd") }, ""},
		"number":    {func(etc string) error { return os.WriteFile(etc+"/passwd", []byte("0:x:101:1::/:\n"), 0o600) }, ""},
		"control":   {func(etc string) error { return os.WriteFile(etc+"/passwd", []byte("\x1b[2J:x:101:1::/:\n"), 0o600) }, ""},
		"columns":   {func(etc string) error { return os.WriteFile(etc+"/passwd", []byte("a b:x:101:1::/:\n"), 0o600) }, ""},
		"long": {func(etc string) error {
			return os.WriteFile(etc+"/passwd", []byte(strings.Repeat("a", 65)+":x:101:1::/:\n"), 0o600)
		}, ""},
		"huge": {func(etc string) error {
			return os.WriteFile(etc+"/passwd", append(bytes.Repeat([]byte("#"), maxAccounts+1), line...), 0o600)
		}, ""},
		"sparse": {func(etc string) error {
			return either(os.WriteFile(etc+"/passwd", []byte(line), 0o600), os.Truncate(etc+"/passwd", 1<<40))
		}, "web"},
	} {
		root := t.TempDir()
		etc := filepath.Join(root, "etc")
		if err := os.Mkdir(etc, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := c.make(etc); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		dir, err := at.Dir(root)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan string, 1)
		go func() { done <- readNames(dir, "etc/passwd")["101"] }()
		select {
		case got := <-done:
			if got != c.want {
				t.Errorf("%s: %q", name, got)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s: still reading", name)
		}
		dir.Close()
	}
}

func twoSteps(etc, target, text string) error {
	return either(os.Symlink(target, etc+"/passwd"), os.WriteFile(etc+"/real", []byte(text), 0o600))
}

func either(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func TestClock(t *testing.T) {
	for text, c := range map[string]struct {
		d     time.Duration
		hours bool
	}{"00:00": {0, false}, "01:05": {65 * time.Second, false}, "00:01:05": {65 * time.Second, true}, "01:00:00": {time.Hour, false}, "2-00:00:01": {48*time.Hour + time.Second, false}} {
		if got := clock(c.d, c.hours); got != text {
			t.Errorf("%v: %q, not %q", c.d, got, text)
		}
	}
	for packed, want := range map[int64]string{0: "?", 34816: "pts/0", 34823: "pts/7", 35072: "pts/256", 1025: "tty1", 1088: "ttyS0", 1281: "5:1"} {
		if got := terminal(packed); got != want {
			t.Errorf("%d: %q, not %q", packed, got, want)
		}
	}
}

func FuzzParseNames(f *testing.F) {
	f.Add("root:x:0:0:root:/root:/bin/sh\n")
	f.Add("a:b:4294967296:\n:::\n")
	f.Fuzz(func(t *testing.T, text string) {
		names := map[string]string{}
		parseNames(names, text)
		for id, name := range names {
			if _, err := strconv.ParseUint(id, 10, 32); err != nil || !plainName(name) {
				t.Errorf("%q is %q", id, name)
			}
		}
	})
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("1 (a) b) S 1 2 3"))
	f.Add([]byte(")("))
	f.Fuzz(func(t *testing.T, text []byte) { parseStat(text) })
}
