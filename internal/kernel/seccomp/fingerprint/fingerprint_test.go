package fingerprint

import (
	"testing"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestOf(t *testing.T) {
	a, b := defaultProfile(t), defaultProfile(t)
	if Of(a) != Of(b) {
		t.Error("equal profiles differ")
	}
	seen := map[[32]byte]bool{Of(a): true}
	one := uint(1)
	for i, change := range []func(*specs.LinuxSeccomp){
		func(p *specs.LinuxSeccomp) { p.DefaultErrnoRet = nil },
		func(p *specs.LinuxSeccomp) {
			p.Syscalls[0].Names[0] += p.Syscalls[0].Names[1]
			p.Syscalls[0].Names[1] = ""
		},
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].ErrnoRet = &one },
		func(p *specs.LinuxSeccomp) { p.Architectures = p.Architectures[1:] },
		func(p *specs.LinuxSeccomp) { p.Flags = append(p.Flags, specs.LinuxSeccompFlagLog) },
		func(p *specs.LinuxSeccomp) { p.Syscalls[2].Args[0].Value++ },
	} {
		p := defaultProfile(t)
		change(p)
		if seen[Of(p)] {
			t.Errorf("change %d is not seen", i)
		}
		seen[Of(p)] = true
	}
}

func defaultProfile(t *testing.T) *specs.LinuxSeccomp {
	t.Helper()
	p, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func BenchmarkOf(b *testing.B) {
	p, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		Of(p)
	}
}
