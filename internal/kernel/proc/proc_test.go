package proc

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

// absent is a pid no process has: above the largest pid_max.
const absent = 1<<22 + 1

// sandbox starts a shell in namespaces of its own that has a child, and waits
// until it has.
func sandbox(t *testing.T, script string) int {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("root: maps of several ids are written by root")
	}
	cmd := exec.Command("sh", "-c", script)
	maps := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 700000, Size: 1000}, {ContainerID: 1000, HostID: 800000, Size: 5}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWPID,
		UidMappings: maps, GidMappings: maps, GidMappingsEnableSetgroups: true,
		Credential: &syscall.Credential{}, Pdeathsig: unix.SIGKILL,
	}
	runtime.LockOSThread() // Pdeathsig is sent when the thread ends
	t.Cleanup(runtime.UnlockOSThread)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	var word string
	if _, err := fmt.Fscan(out, &word); err != nil || word != "ready" {
		t.Fatalf("the shell said %q, %v", word, err)
	}
	return cmd.Process.Pid
}

func TestIDMaps(t *testing.T) {
	pid := sandbox(t, "echo ready; exec sleep 62")
	want, err := idmap.New(idmap.Span{In: 0, Out: 700000, N: 1000}, idmap.Span{In: 1000, Out: 800000, N: 5})
	if err != nil {
		t.Fatal(err)
	}
	if pair, err := IDMaps(pid); err != nil || !pair.Equal(idmap.Pair{UID: want, GID: want}) {
		t.Errorf("%+v, %v", pair, err)
	}
	if _, err := IDMaps(absent); !fault.Is(err, fault.NotFound) {
		t.Errorf("absent: %v", err)
	}
	if pair, err := IDMaps(os.Getpid()); err != nil || pair.IsZero() {
		t.Errorf("own: %+v, %v", pair, err)
	}
}

func TestNamespacePids(t *testing.T) {
	pid := sandbox(t, "sleep 60 & unshare --fork --pid sleep 61 & echo ready; exec sleep 62")
	var pids []int
	var names []string
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		var err error
		if pids, err = NamespacePids(pid); err != nil {
			t.Fatal(err)
		}
		names = nil
		for _, p := range pids {
			text, err := os.ReadFile(path(p, "cmdline"))
			if err == nil {
				names = append(names, strings.ReplaceAll(strings.TrimRight(string(text), "\x00"), "\x00", " "))
			}
		}
		if slices.Contains(names, "sleep 61") && slices.Contains(names, "sleep 60") && len(pids) == 4 || time.Now().After(end) {
			break
		}
	}
	for _, want := range []string{"sleep 60", "sleep 61"} {
		if !slices.Contains(names, want) {
			t.Errorf("%q is not in %q", want, names)
		}
	}
	if len(pids) != 4 || !slices.Contains(pids, pid) || slices.Contains(pids, os.Getpid()) {
		t.Errorf("%v: %q", pids, names)
	}
	if _, err := NamespacePids(absent); !fault.Is(err, fault.NotFound) {
		t.Errorf("absent: %v", err)
	}
}

func TestStartTime(t *testing.T) {
	own, err := StartTime(os.Getpid())
	if err != nil || own == 0 {
		t.Errorf("%d, %v", own, err)
	}
	if first, err := StartTime(1); err != nil || first > own {
		t.Errorf("process 1 at %d, this one at %d, %v", first, own, err)
	}
	if _, err := StartTime(absent); !fault.Is(err, fault.NotFound) {
		t.Errorf("absent: %v", err)
	}
	line := "7 (a) b (c) S" + strings.Repeat(" 1", 18) + " 4242 0 0\n"
	if got, err := parseStartTime([]byte(line)); err != nil || got != 4242 {
		t.Errorf("%d, %v", got, err)
	}
}

func TestTop(t *testing.T) {
	if _, err := exec.LookPath("ps"); err != nil {
		t.Skip("tool: ps")
	}
	pid := sandbox(t, "sleep 60 & echo ready; exec sleep 62")
	pids, err := NamespacePids(pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{nil, {"aux"}, {"-eo", "pid,uid,comm"}, {"-e", "--sort", "-pid"}} {
		top, err := Top(context.Background(), pids, args)
		if err != nil {
			t.Errorf("%v: %v", args, err)
			continue
		}
		column := slices.Index(top.Titles, "PID")
		var got []string
		for _, row := range top.Processes {
			if len(row) != len(top.Titles) {
				t.Errorf("%v: %d columns in %q", args, len(row), row)
			}
			got = append(got, row[column])
		}
		if !slices.Contains(got, strconv.Itoa(pid)) || len(got) != len(pids) {
			t.Errorf("%v: %v, want %v", args, got, pids)
		}
	}
	top, err := Top(context.Background(), []int{pid}, []string{"-o", "pid,uid"})
	if err != nil || len(top.Processes) != 1 || top.Processes[0][1] != "700000" {
		t.Errorf("host ids: %+v, %v", top, err)
	}
	if top, err := Top(context.Background(), nil, nil); err != nil || len(top.Processes) != 0 {
		t.Errorf("nobody: %+v, %v", top, err)
	}
}

func TestTopRefusals(t *testing.T) {
	if _, err := exec.LookPath("ps"); err != nil {
		t.Skip("tool: ps")
	}
	for text, args := range map[string][]string{
		"Couldn't find PID field in ps output": {"-o", "comm"},
		"ps: error":                            {"--nosuchoption"},
		"control character":                    {"-o\npid"},
	} {
		if _, err := Top(context.Background(), []int{1}, args); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v", args, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Top(ctx, []int{1}, nil); !fault.Is(err, fault.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

func FuzzParseStartTime(f *testing.F) {
	f.Add([]byte("1 (a b) S 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 99 1"))
	f.Add([]byte(")"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, stat []byte) { parseStartTime(stat) })
}

func FuzzTable(f *testing.F) {
	f.Add([]byte("UID PID CMD\nroot 1 a b c\nroot x d\n\n"), 1)
	f.Add([]byte("PID\n1\n"), 1)
	f.Add([]byte(""), 0)
	f.Fuzz(func(t *testing.T, text []byte, pid int) {
		top, err := table(text, []int{pid})
		if err != nil {
			return
		}
		for _, row := range top.Processes {
			if len(row) > len(top.Titles) {
				t.Errorf("%d columns under %d titles", len(row), len(top.Titles))
			}
		}
	})
}
