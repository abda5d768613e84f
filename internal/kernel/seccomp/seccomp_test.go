package seccomp

import (
	"runtime"
	"slices"
	"strings"
	"testing"

	mobyseccomp "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

func names(table string) []string {
	var out []string
	for line := range strings.Lines(table[1:]) {
		name, _, _ := strings.Cut(line, " ")
		out = append(out, name)
	}
	return out
}

func TestTables(t *testing.T) {
	m, _ := machineOf(runtime.GOARCH)
	for name, want := range map[string]uint32{"read": unix.SYS_READ, "clone3": unix.SYS_CLONE3, "openat2": unix.SYS_OPENAT2} {
		if got, ok := m[0].abis[0].number(name); !ok || got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
	for _, table := range []string{tableX8664, tableX32, tableI386, tableAArch64, tableARM, tableOther} {
		all := names(table)
		if !slices.IsSorted(all) {
			t.Errorf("table beginning with %s is not sorted", all[0])
		}
		for _, name := range all {
			if _, ok := lookup(table, name); !ok {
				t.Errorf("%s is not found", name)
			}
			for _, absent := range []string{name + "0x", name[:len(name)-1] + "\x01", name + " "} {
				if _, ok := lookup(table, absent); ok {
					t.Errorf("%q is found", absent)
				}
			}
		}
	}
	if _, ok := lookup(tableX8664, ""); ok {
		t.Error("the empty name is found")
	}
	x32 := machines(t)["amd64"][0].abis[1]
	if n, ok := x32.number("execveat"); !ok || n != x32Bit+545 {
		t.Errorf("x32 execveat = %#x", n)
	}
}

// defaultProfile is Docker's for a container with the given capabilities.
func defaultProfile(t testing.TB, caps ...string) *specs.LinuxSeccomp {
	t.Helper()
	p, err := mobyseccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDefaultProfile(t *testing.T) {
	p := defaultProfile(t)
	p.Architectures = []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32, specs.ArchARM}
	for goarch, m := range machines(t) {
		filter, _, err := compile(m, p)
		if err != nil {
			t.Fatal(err)
		}
		v := vm(t, filter)
		t.Logf("%s: %d instructions", goarch, len(filter))
		if len(filter) > 600 {
			t.Errorf("%s: %d instructions", goarch, len(filter))
		}
		for _, e := range m {
			for _, base := range []uint32{0, x32Bit, armPrivate} {
				for n := base; n < base+700; n++ {
					for _, arg := range []uint64{0, 38, 39, 40, unix.CLONE_NEWUSER, 0xffffffff} {
						call := event{audit: e.audit, number: n, args: [6]uint64{arg}}
						if got, want := run1(t, v, call), expect(m, p, call); got != want {
							t.Fatalf("%s: %+v: got %#x, want %#x", goarch, call, got, want)
						}
					}
				}
			}
		}
	}
}

// TestDepth holds the search to its promise: far fewer comparisons than calls.
func TestDepth(t *testing.T) {
	m := machines(t)["amd64"]
	filter, _, err := compile(m, defaultProfile(t))
	if err != nil {
		t.Fatal(err)
	}
	for n := uint32(0); n < 480; n++ {
		steps, pc := 0, 0
		acc := uint32(0)
		for filter[pc].Code != unix.BPF_RET|unix.BPF_K {
			f := filter[pc]
			steps++
			pc++
			switch f.Code {
			case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
				acc = map[uint32]uint32{offNumber: n, offArch: m[0].audit}[f.K]
			case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
				acc &= f.K
			case unix.BPF_JMP | unix.BPF_JA:
				pc += int(f.K)
			default:
				yes := f.Code&0xf0 == unix.BPF_JEQ && acc == f.K || f.Code&0xf0 == unix.BPF_JGE && acc >= f.K || f.Code&0xf0 == unix.BPF_JGT && acc > f.K
				pc += int(map[bool]uint8{true: f.Jt, false: f.Jf}[yes])
			}
		}
		if steps > 40 {
			t.Errorf("call %d takes %d instructions", n, steps)
		}
	}
}

func TestTooBig(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}
	for i := range 2000 {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{"socket"}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{Index: 0, Value: uint64(i) << 31, Op: specs.OpEqualTo}}})
	}
	if _, _, err := compile(machines(t)["amd64"], p); fault.ClassOf(err) != fault.Invalid {
		t.Errorf("got %v", err)
	}
}

func TestRefusals(t *testing.T) {
	errno, large := uint(1), uint(5000)
	allow := func(s specs.LinuxSyscall) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{s}}
	}
	read := []string{"read"}
	for name, c := range map[string]struct {
		p     *specs.LinuxSeccomp
		class fault.Class
		text  string
	}{
		"no default":     {&specs.LinuxSeccomp{}, fault.Invalid, `action "" is unknown`},
		"notify default": {&specs.LinuxSeccomp{DefaultAction: specs.ActNotify, ListenerPath: "/x"}, fault.Invalid, "SCMP_ACT_NOTIFY"},
		"notify":         {allow(specs.LinuxSyscall{Names: read, Action: specs.ActNotify}), fault.Invalid, "needs a listenerPath"},
		"notify handover": {&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/x",
			Syscalls: []specs.LinuxSyscall{{Names: []string{"read", "sendmsg"}, Action: specs.ActNotify}}}, fault.Invalid, "handed over"},
		"metadata":       {&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerMetadata: "x"}, fault.Invalid, "listenerMetadata"},
		"arch":           {&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"x86"}}, fault.Invalid, `architecture "x86"`},
		"flag":           {&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"X"}}, fault.Invalid, `flag "X"`},
		"action":         {allow(specs.LinuxSyscall{Names: read, Action: "SCMP_ACT_X"}), fault.Invalid, "SCMP_ACT_X"},
		"no names":       {allow(specs.LinuxSyscall{Action: specs.ActAllow}), fault.Invalid, "no names"},
		"index":          {allow(specs.LinuxSyscall{Names: read, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}), fault.Invalid, "index 6"},
		"operator":       {allow(specs.LinuxSyscall{Names: read, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Op: "=="}}}), fault.Invalid, `operator "=="`},
		"errno of allow": {allow(specs.LinuxSyscall{Names: read, Action: specs.ActAllow, ErrnoRet: &errno}), fault.Invalid, "no errno"},
		"large errno":    {allow(specs.LinuxSyscall{Names: read, Action: specs.ActErrno, ErrnoRet: &large}), fault.Invalid, "5000"},
		"default errno":  {&specs.LinuxSeccomp{DefaultAction: specs.ActKill, DefaultErrnoRet: &errno}, fault.Invalid, "no errno"},
		"restricts an unknown call": {&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"unlinkatt"}, Action: specs.ActErrno}}}, fault.Invalid, "unlinkatt"},
	} {
		_, _, err := Compile(c.p)
		if fault.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: got %v (%v), want %v with %q", name, err, fault.ClassOf(err), c.class, c.text)
		}
	}
}

func TestUnknownNames(t *testing.T) {
	// A call of another architecture may be restricted, an unknown one allowed.
	for _, p := range []*specs.LinuxSeccomp{
		{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"s390_runtime_instr"}, Action: specs.ActErrno}}},
		{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"from_the_future"}, Action: specs.ActAllow}}},
	} {
		if _, _, err := Compile(p); err != nil {
			t.Error(err)
		}
	}
}

func TestFlags(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{
		specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow, specs.LinuxSeccompFlagWaitKillableRecv, "SECCOMP_FILTER_FLAG_TSYNC"}}
	_, flags, err := Compile(p)
	if err != nil || flags != unix.SECCOMP_FILTER_FLAG_LOG|unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW {
		t.Errorf("flags %#x, %v", flags, err)
	}
}

func TestMultiplexed(t *testing.T) {
	for name, want := range map[string]struct {
		through string
		value   uint64
	}{
		"socket": {"socketcall", 1}, "bind": {"socketcall", 2}, "socketpair": {"socketcall", 8}, "sendmmsg": {"socketcall", 20},
		"semop": {"ipc", 1}, "semtimedop": {"ipc", 4}, "msgsnd": {"ipc", 11}, "msgctl": {"ipc", 14}, "shmat": {"ipc", 21}, "shmctl": {"ipc", 24},
	} {
		through, value, ok := multiplexed(name)
		if !ok || through != want.through || value != want.value {
			t.Errorf("%s: %s %d", name, through, value)
		}
	}
	for _, name := range []string{"", " ", "sock", "read", "socket bind"} {
		if _, _, ok := multiplexed(name); ok {
			t.Errorf("%q", name)
		}
	}
}

func BenchmarkCompileDefault(b *testing.B) {
	p := defaultProfile(b)
	for b.Loop() {
		if _, _, err := Compile(p); err != nil {
			b.Fatal(err)
		}
	}
}
