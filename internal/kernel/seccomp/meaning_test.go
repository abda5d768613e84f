package seccomp

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// event is what the kernel shows to a filter.
type event struct {
	audit  uint32
	number uint32
	args   [6]uint64
}

// packet lays the event out for the VM, which reads words big-endian.
func (e event) packet() []byte {
	b := binary.BigEndian.AppendUint32(nil, e.number)
	b = binary.BigEndian.AppendUint32(b, e.audit)
	b = append(b, make([]byte, 8)...)
	for _, v := range e.args {
		b = binary.BigEndian.AppendUint32(b, uint32(v))
		b = binary.BigEndian.AppendUint32(b, uint32(v>>32))
	}
	return b
}

// abiOf finds the ABI a call is made by, or what the filter returns without
// looking at any rule.
func abiOf(m machine, p *specs.LinuxSeccomp, e event) (found abi, ret uint32) {
	listed := func(a abi) bool { return a.arch == m.native() || slices.Contains(p.Architectures, a.arch) }
	for _, entry := range m {
		for _, a := range entry.abis {
			switch {
			case entry.audit != e.audit || e.number < a.first || e.number > a.last:
			case listed(a):
				return a, 0
			case e.number == 1<<32-1 && len(entry.abis) > 1:
				return entry.abis[0], 0
			}
		}
	}
	return abi{}, unix.SECCOMP_RET_KILL_PROCESS
}

// expect is the meaning of a profile, told without any cleverness.
func expect(m machine, p *specs.LinuxSeccomp, e event) uint32 {
	abi, ret := abiOf(m, p, e)
	if ret != 0 {
		return ret
	}
	def := mustAction(p.DefaultAction, p.DefaultErrnoRet)
	var first *uint32 // of the rules with arguments
	newest, named := uint32(0), false
	for _, s := range p.Syscalls {
		ret := mustAction(s.Action, s.ErrnoRet)
		for _, name := range s.Names {
			n, ok := abi.number(name)
			if ok && !(abi.arch == specs.ArchARM && n >= armPrivate) {
				newest = max(newest, n+1)
			}
			named = named || ok && n == e.number && ret != def // also when its arguments differ: it is no call of the future
			switch {
			case ret == def:
			case ok && n == e.number && len(s.Args) == 0:
				return ret
			case first != nil:
			case ok && n == e.number && argsMatch(s.Args, e, abi.narrow), len(s.Args) == 0 && muxedTo(abi, name, e):
				first = &ret
			}
		}
	}
	permissive := p.DefaultAction == specs.ActAllow || p.DefaultAction == specs.ActLog || p.DefaultAction == specs.ActTrace
	switch {
	case first != nil:
		return *first
	case newest > 0 && !permissive && !named && e.number >= newest:
		return unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	}
	return def
}

func muxedTo(a abi, name string, e event) bool {
	through, value, ok := multiplexed(name)
	n, _ := a.number(through)
	return ok && a.mux && n == e.number && uint32(e.args[0]) == uint32(value)
}

func mustAction(a specs.LinuxSeccompAction, errno *uint) uint32 {
	ret, err := action(a, errno)
	if err != nil {
		panic(err)
	}
	return ret
}

func argsMatch(args []specs.LinuxSeccompArg, e event, narrow bool) bool {
	count := [6]int{}
	any, all := false, true
	for _, a := range args {
		count[a.Index]++
		ok := argMatches(a, e.args[a.Index], narrow)
		any, all = any || ok, all && ok
	}
	if slices.Max(count[:]) > 1 {
		return any
	}
	return all
}

func argMatches(a specs.LinuxSeccompArg, v uint64, narrow bool) bool {
	value, second := a.Value, a.ValueTwo
	if narrow {
		value, second, v = value&0xffffffff, second&0xffffffff, v&0xffffffff
	}
	switch a.Op {
	case specs.OpEqualTo:
		return v == value
	case specs.OpNotEqual:
		return v != value
	case specs.OpLessThan:
		return v < value
	case specs.OpLessEqual:
		return v <= value
	case specs.OpGreaterThan:
		return v > value
	case specs.OpGreaterEqual:
		return v >= value
	case specs.OpMaskedEqual:
		return v&value == second&value
	}
	panic(a.Op)
}

type fataler interface {
	Helper()
	Fatalf(string, ...any)
}

func vm(t fataler, filter []unix.SockFilter) *bpf.VM {
	t.Helper()
	raw := make([]bpf.RawInstruction, len(filter))
	for i, f := range filter {
		raw[i] = bpf.RawInstruction{Op: f.Code, Jt: f.Jt, Jf: f.Jf, K: f.K}
	}
	ins, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatalf("the program has instructions x/net/bpf does not know")
	}
	v, err := bpf.NewVM(ins)
	if err != nil {
		t.Fatalf("the program is not valid: %v", err)
	}
	return v
}

func run1(t fataler, v *bpf.VM, e event) uint32 {
	t.Helper()
	got, err := v.Run(e.packet())
	if err != nil {
		t.Fatalf("%+v: %v", e, err)
	}
	return uint32(got)
}

func machines(t fataler) map[string]machine {
	out := map[string]machine{}
	for _, goarch := range []string{"amd64", "arm64"} {
		m, ok := machineOf(goarch)
		if !ok {
			t.Fatalf("no machine %s", goarch)
		}
		out[goarch] = m
	}
	return out
}

// profiles draws a profile, wild in everything that Compile has to be right
// about. big asks for one whose program needs long jumps.
func profiles(m machine, big bool) *rapid.Generator[*specs.LinuxSeccomp] {
	pool := []string{"nosuchcall"}
	for _, e := range m {
		for _, a := range e.abis {
			pool = append(pool, names(a.table)...)
		}
	}
	slices.Sort(pool)
	pool = slices.Compact(pool)
	few := rapid.SampledFrom([]string{"socket", "clone", "personality", "read", "execve", "socketcall", "ipc", "shmget", "send", "cacheflush", "ioctl", "rseq_slice_yield"})
	name := rapid.OneOf(few, rapid.SampledFrom(pool))
	word := rapid.OneOf(rapid.Uint64(), rapid.SampledFrom([]uint64{0, 1, 2, 8, 1<<32 - 1, 1 << 32, 1<<32 + 1, 1<<64 - 1, 1 << 31, 0x7e020000}))
	errno := rapid.Ptr(rapid.UintRange(0, 4095), true)
	act := rapid.Custom(func(t *rapid.T) (out specs.LinuxSyscall) {
		out.Action = rapid.SampledFrom([]specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActTrap, specs.ActTrace, specs.ActLog}).Draw(t, "action")
		if out.Action == specs.ActErrno || out.Action == specs.ActTrace {
			out.ErrnoRet = errno.Draw(t, "errno")
		}
		return out
	})
	arg := rapid.Custom(func(t *rapid.T) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{
			Index: rapid.UintRange(0, 5).Draw(t, "index"),
			Value: word.Draw(t, "value"), ValueTwo: word.Draw(t, "two"),
			Op: rapid.SampledFrom([]specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpMaskedEqual}).Draw(t, "op"),
		}
	})
	entries, args := 12, 3
	if big {
		entries, args = 60, 2
	}
	return rapid.Custom(func(t *rapid.T) *specs.LinuxSeccomp {
		def := act.Draw(t, "default")
		p := &specs.LinuxSeccomp{DefaultAction: def.Action, DefaultErrnoRet: def.ErrnoRet}
		p.ListenerPath = "/listener"
		p.Architectures = rapid.SliceOf(rapid.SampledFrom([]specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32, specs.ArchAARCH64, specs.ArchARM, specs.ArchS390X})).Draw(t, "arches")
		lowest := 0
		if big {
			lowest = entries
		}
		for range rapid.IntRange(lowest, entries).Draw(t, "entries") {
			s := act.Draw(t, "entry")
			s.Names = rapid.SliceOfN(name, 1, 6).Draw(t, "names")
			if rapid.IntRange(0, 5).Draw(t, "notify") == 0 && !slices.Contains(s.Names, handover) {
				s.Action, s.ErrnoRet = specs.ActNotify, nil
			}
			s.Args = rapid.SliceOfN(arg, 0, args).Draw(t, "args")
			p.Syscalls = append(p.Syscalls, s)
		}
		if p.DefaultAction == specs.ActAllow || p.DefaultAction == specs.ActLog || p.DefaultAction == specs.ActTrace {
			for i := range p.Syscalls {
				p.Syscalls[i].Names = slices.DeleteFunc(p.Syscalls[i].Names, func(n string) bool { return n == "nosuchcall" })
			}
			p.Syscalls = slices.DeleteFunc(p.Syscalls, func(s specs.LinuxSyscall) bool { return len(s.Names) == 0 })
		}
		return p
	})
}

// events draws a call, mostly one near the profile's rules.
func events(m machine, p *specs.LinuxSeccomp) *rapid.Generator[event] {
	var numbers []uint32
	values := []uint64{0, 1, 1<<64 - 1, 1 << 32, 1<<32 - 1}
	for _, s := range p.Syscalls {
		for _, e := range m {
			for _, a := range e.abis {
				for _, name := range s.Names {
					if n, ok := a.number(name); ok {
						numbers = append(numbers, n, n+1, n-1, n^x32Bit)
					}
				}
			}
		}
		for _, a := range s.Args {
			values = append(values, a.Value, a.Value+1, a.Value-1, a.ValueTwo, a.Value&0xffffffff, a.Value|1<<32, a.Value^1<<63)
		}
	}
	numbers = append(numbers, 0, 102, 117, 471, 472, x32Bit, x32Bit-1, x32Bit+512, armPrivate+2, 1<<32-1, 1<<32-2)
	return rapid.Custom(func(t *rapid.T) event {
		e := event{audit: rapid.SampledFrom([]uint32{m[0].audit, m[0].audit, m[1].audit, unix.AUDIT_ARCH_S390X}).Draw(t, "audit")}
		e.number = rapid.OneOf(rapid.SampledFrom(numbers), rapid.SampledFrom(numbers), rapid.Uint32()).Draw(t, "number")
		for i := range e.args {
			e.args[i] = rapid.OneOf(rapid.SampledFrom(values), rapid.SampledFrom(values), rapid.Uint64(), rapid.Uint64Range(0, 24)).Draw(t, "arg")
			if e.audit == m[1].audit {
				e.args[i] &= 0xffffffff
			}
		}
		return e
	})
}

func TestCompileMeansWhatTheProfileSays(t *testing.T) {
	for goarch, m := range machines(t) {
		for _, big := range []bool{false, true} {
			t.Run(goarch+map[bool]string{true: "/big"}[big], rapid.MakeCheck(func(t *rapid.T) {
				p := profiles(m, big).Draw(t, "profile")
				filter, flags, err := compile(m, p)
				if err != nil {
					t.Fatalf("compile: %v", err)
				}
				notifies := slices.ContainsFunc(p.Syscalls, func(s specs.LinuxSyscall) bool { return s.Action == specs.ActNotify })
				if notifies != (flags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER != 0) {
					t.Fatalf("flags %#x, a rule of SCMP_ACT_NOTIFY: %v", flags, notifies)
				}
				v := vm(t, filter)
				calls := events(m, p)
				for range 60 {
					e := calls.Draw(t, "call")
					if got, want := run1(t, v, e), expect(m, p, e); got != want {
						t.Fatalf("%+v: got %#x, want %#x", e, got, want)
					}
				}
			}))
		}
	}
}
