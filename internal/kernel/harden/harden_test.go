package harden

import (
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

func TestCapabilityNumbers(t *testing.T) {
	for name, want := range map[string]int{"CAP_CHOWN": 0, "chown": 0, "cap_sys_admin": unix.CAP_SYS_ADMIN, "CHECKPOINT_RESTORE": unix.CAP_CHECKPOINT_RESTORE} {
		if got, ok := Capability(name); !ok || got != want {
			t.Errorf("%s = %d %v, want %d", name, got, ok, want)
		}
	}
	for n := 0; ; n++ {
		name, ok := CapabilityName(n)
		if !ok {
			if n != unix.CAP_LAST_CAP+1 {
				t.Errorf("%d names, the kernel headers have %d", n, unix.CAP_LAST_CAP+1)
			}
			break
		}
		if back, ok := Capability(name); !ok || back != n {
			t.Errorf("%s = %d, want %d", name, back, n)
		}
	}
	for _, name := range []string{"", "CAP_", "cap_cap_chown", "x"} {
		if _, ok := Capability(name); ok {
			t.Errorf("%q is a capability", name)
		}
	}
	if last, err := LastCap(); err != nil || last < unix.CAP_CHECKPOINT_RESTORE {
		t.Errorf("last capability %d, %v", last, err)
	}
}

func TestCapMask(t *testing.T) {
	// The mask every container of Docker's shows in /proc/self/status.
	if mask, err := CapMask(DefaultCaps()); err != nil || mask != 0xa80425fb {
		t.Errorf("default mask %#x, %v", mask, err)
	}
	if _, err := CapMask([]string{"CAP_X"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("got %v", err)
	}
}

func TestCaps(t *testing.T) {
	const last = unix.CAP_CHECKPOINT_RESTORE
	all, err := Caps([]string{"all"}, nil, last)
	if err != nil || len(all) != last+1 {
		t.Fatalf("all: %d, %v", len(all), err)
	}
	for name, c := range map[string]struct {
		add, drop []string
		want      []string
	}{
		"nothing":      {nil, nil, DefaultCaps()},
		"add":          {[]string{"sys_ptrace", "CAP_CHOWN"}, nil, append(DefaultCaps(), "CAP_SYS_PTRACE")},
		"drop":         {nil, []string{"chown", "net_raw", "bpf"}, without(DefaultCaps(), []string{"CAP_CHOWN", "CAP_NET_RAW"})},
		"both":         {[]string{"chown"}, []string{"chown"}, append(without(DefaultCaps(), []string{"CAP_CHOWN"}), "CAP_CHOWN")},
		"drop all":     {[]string{"kill"}, []string{"ALL"}, []string{"CAP_KILL"}},
		"nothing left": {nil, []string{"ALL"}, nil},
		"all but":      {[]string{"ALL"}, []string{"sys_admin"}, without(slices.Clone(all), []string{"CAP_SYS_ADMIN"})},
	} {
		if got, err := Caps(c.add, c.drop, last); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v %v, want %v", name, got, err, c.want)
		}
	}
	for _, c := range []struct {
		add, drop []string
		last      int
		text      string
	}{
		{[]string{"nope"}, nil, last, `invalid CapAdd: unknown capability: "CAP_NOPE"`},
		{nil, []string{""}, last, `invalid CapDrop: unknown capability: "CAP_"`},
		{[]string{"bpf"}, nil, 37, `invalid CapAdd: capability not supported by your kernel or not available in the current environment: "CAP_BPF"`},
	} {
		if _, err := Caps(c.add, c.drop, c.last); !fault.Is(err, fault.Invalid) || err.Error() != c.text {
			t.Errorf("got %v, want %s", err, c.text)
		}
	}
}

func TestRlimits(t *testing.T) {
	for name, want := range map[string]int{"cpu": unix.RLIMIT_CPU, "nofile": unix.RLIMIT_NOFILE, "RLIMIT_NPROC": unix.RLIMIT_NPROC, "rttime": unix.RLIMIT_RTTIME, "memlock": unix.RLIMIT_MEMLOCK, "msgqueue": unix.RLIMIT_MSGQUEUE, "as": unix.RLIMIT_AS} {
		got, ok := Rlimit(name)
		if !ok || got != want {
			t.Errorf("%s = %d, want %d", name, got, want)
		}
		if back, _ := RlimitName(got); back != strings.ToLower(strings.TrimPrefix(name, "RLIMIT_")) {
			t.Errorf("%d is %s", got, back)
		}
	}
	for _, name := range []string{"", "rlimit_", "open", "nofile "} {
		if _, ok := Rlimit(name); ok {
			t.Errorf("%q is a limit", name)
		}
	}
	// /proc/self/limits has one line for each limit and a heading.
	text, err := os.ReadFile("/proc/self/limits")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Count(string(text), "\n") - 1
	if _, ok := RlimitName(lines); ok {
		t.Errorf("a limit above the %d of this kernel", lines)
	}
	if _, ok := RlimitName(lines - 1); !ok {
		t.Errorf("this kernel has %d limits", lines)
	}
}

func TestSignals(t *testing.T) {
	for name, want := range map[string]syscall.Signal{"TERM": 15, "SIGTERM": 15, "sigterm": 15, "15": 15, "KILL": 9, "1": 1, "64": 64,
		"CLD": 17, "IOT": 6, "POLL": 29, "IO": 29, "RTMIN": 34, "SIGRTMIN+3": 37, "RTMAX-1": 63, "RTMAX": 64, "RTMIN+30": 64, "WINCH": 28} {
		if got, err := Signal(name); err != nil || got != want {
			t.Errorf("%s = %d %v, want %d", name, got, err, want)
		}
	}
	for _, name := range []string{"", "0", "-1", "65", "SIG", "SIGSIGTERM", "RTMIN-1", "RTMIN+31", "RTMAX+1", "RTMIN+", "RTMIN++1", "TERM "} {
		if got, err := Signal(name); !fault.Is(err, fault.Invalid) || err.Error() != "invalid signal: "+name {
			t.Errorf("%q = %d %v", name, got, err)
		}
	}
	for n := syscall.Signal(1); n <= rtMax; n++ {
		if back, err := Signal(SignalName(n)); err != nil || back != n {
			t.Errorf("%d is %s, which is %d %v", n, SignalName(n), back, err)
		}
	}
}

func FuzzSignal(f *testing.F) {
	for _, seed := range []string{"TERM", "SIGRTMIN+3", "15", "-9", "RTMAX-300"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if sig, err := Signal(name); err == nil && (sig < 1 || sig > rtMax) {
			t.Errorf("%q = %d", name, sig)
		}
	})
}
