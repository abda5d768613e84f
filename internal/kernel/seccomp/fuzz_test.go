package seccomp

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// FuzzProfile: whatever is in a profile, it is refused, or its program is one that
// the kernel takes and that means what the profile says.
func FuzzProfile(f *testing.F) {
	for _, seed := range []string{
		`{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],"syscalls":[{"names":["read","clone3"],"action":"SCMP_ACT_ALLOW"}]}`,
		`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_AARCH64","SCMP_ARCH_ARM"],"syscalls":[{"names":["clone"],"action":"SCMP_ACT_ERRNO","errnoRet":1,"args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]}]}`,
		`{"defaultAction":"SCMP_ACT_KILL","syscalls":[{"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":0,"op":"SCMP_CMP_EQ"},{"index":0,"value":18446744073709551615,"op":"SCMP_CMP_EQ"}]}]}`,
		`{"defaultAction":"SCMP_ACT_TRACE","listenerPath":"/l","flags":["SECCOMP_FILTER_FLAG_LOG"],"syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var p specs.LinuxSeccomp
		if len(data) > 4096 || json.Unmarshal(data, &p) != nil {
			return
		}
		for _, m := range machines(t) {
			filter, _, err := compile(m, &p)
			if err != nil || len(filter) == 0 {
				continue
			}
			if len(filter) > maxInstructions {
				t.Fatalf("%d instructions", len(filter))
			}
			v := vm(t, filter)
			calls := events(m, &p)
			for i := range 20 {
				e := calls.Example(i)
				if got, want := run1(t, v, e), expect(m, &p, e); got != want {
					t.Fatalf("%+v: got %#x, want %#x", e, got, want)
				}
			}
		}
	})
}

// TestMutantsAreCaught: the comparison of programs with profiles finds out about
// programs that are wrong: of those with the two ways of a jump exchanged, a
// number off by one, or another answer, nearly all are seen.
func TestMutantsAreCaught(t *testing.T) {
	arg := func(index uint, value, two uint64, op specs.LinuxSeccompOperator) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Index: index, Value: value, ValueTwo: two, Op: op}
	}
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno,
		Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32, specs.ArchAARCH64, specs.ArchARM},
		Syscalls: []specs.LinuxSyscall{
			{Names: []string{"read", "write", "execve", "futex", "mmap"}, Action: specs.ActAllow},
			{Names: []string{"clone"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{arg(0, 0x7e020000, 0, specs.OpMaskedEqual)}},
			{Names: []string{"personality"}, Action: specs.ActLog, Args: []specs.LinuxSeccompArg{arg(0, 0, 0, specs.OpEqualTo), arg(0, 8, 0, specs.OpEqualTo)}},
			{Names: []string{"ioctl"}, Action: specs.ActKillProcess, Args: []specs.LinuxSeccompArg{arg(1, 1<<32+5, 0, specs.OpGreaterThan)}},
			{Names: []string{"socket"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{arg(0, 40, 0, specs.OpNotEqual)}},
		}}
	values := []uint64{0, 1, 7, 8, 9, 39, 40, 41, 1<<32 + 4, 1<<32 + 5, 1<<32 + 6, 2<<32 + 5, 5, 6, 1 << 32, 8 + 1<<32, 40 + 1<<32, 0x7e020000, 0x20000, 0x10000, 1<<64 - 1}
	for goarch, m := range machines(t) {
		filter, _, err := compile(m, p)
		if err != nil {
			t.Fatal(err)
		}
		calls := systematic(m, p, values)
		made, caught := 0, 0
		for i := range filter {
			for _, mutant := range mutants(filter, i) {
				made++
				if seen(t, m, p, mutant, calls) {
					caught++
				}
			}
		}
		t.Logf("%s: %d of %d mutants caught", goarch, caught, made)
		if made < 50 || caught*100 < made*90 {
			t.Errorf("%s: %d of %d mutants caught", goarch, caught, made)
		}
	}
}

// systematic lists calls by every ABI around every number that a profile names,
// with each of the values.
func systematic(m machine, p *specs.LinuxSeccomp, values []uint64) (calls []event) {
	for _, entry := range append(slices.Clone(m), m[0]) {
		for _, a := range entry.abis {
			numbers := []uint32{0, 1<<32 - 1, x32Bit, x32Bit - 1, 4000}
			for _, s := range p.Syscalls {
				for _, name := range s.Names {
					if n, ok := a.number(name); ok {
						numbers = append(numbers, n-1, n, n+1)
					}
				}
			}
			for _, n := range numbers {
				for _, v := range values {
					calls = append(calls, event{audit: entry.audit, number: n, args: [6]uint64{v, v, v, v, v, v}})
				}
			}
		}
	}
	return append(calls, event{audit: unix.AUDIT_ARCH_S390X})
}

// mutants are a program's with another i-th instruction.
func mutants(filter []unix.SockFilter, i int) (out [][]unix.SockFilter) {
	with := func(change func(*unix.SockFilter)) {
		m := slices.Clone(filter)
		change(&m[i])
		out = append(out, m)
	}
	switch o := filter[i]; {
	case o.Code == unix.BPF_JMP|unix.BPF_JA:
	case o.Code&7 == unix.BPF_JMP && o.Jt != o.Jf:
		with(func(o *unix.SockFilter) { o.Jt, o.Jf = o.Jf, o.Jt })
		with(func(o *unix.SockFilter) { o.K++ })
	case o.Code&7 == unix.BPF_RET:
		with(func(o *unix.SockFilter) { o.K ^= 1 << 16 })
	}
	return out
}

func seen(t *testing.T, m machine, p *specs.LinuxSeccomp, filter []unix.SockFilter, calls []event) bool {
	t.Helper()
	v := vm(t, filter)
	for _, e := range calls {
		if run1(t, v, e) != expect(m, p, e) {
			return true
		}
	}
	return false
}
