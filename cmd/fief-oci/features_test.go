package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/kernel/seccomp"
	"fief/internal/launch"
	"fief/internal/launch/launchtest"
)

// constants are the values that the specification's types have for one kind, so
// that a new version of it is noticed.
func constants(t *testing.T, kind string) []string {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("tool: go")
	}
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/opencontainers/runtime-spec").Output()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "specs-go/config.go"))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, m := range regexp.MustCompile(`(?m)^\s+\w+ +`+kind+` = "(.*)"`).FindAllSubmatch(text, -1) {
		list = append(list, string(m[1]))
	}
	if len(list) == 0 {
		t.Fatalf("no constants of %s", kind)
	}
	return list
}

// TestFeaturesAreTrue: whatever features lists is taken by the compilers, and what
// the specification has besides is refused, as is what nobody has.
func TestFeaturesAreTrue(t *testing.T) {
	f := known()
	compiles := func(change func(*specs.Spec)) bool {
		s := launchtest.Spec("true")
		change(s)
		_, err := newCompiler().Container(s, launch.Options{ID: "x", Assists: true})
		return err == nil
	}
	filters := func(change func(p *specs.LinuxSeccomp)) bool {
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/x", Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActErrno}}}
		change(p)
		_, _, err := seccomp.Compile(p)
		return err == nil
	}
	for name, c := range map[string]struct {
		listed, known []string
		taken         func(string) bool
	}{
		"actions": {f.Linux.Seccomp.Actions, constants(t, "LinuxSeccompAction"), func(v string) bool {
			return filters(func(p *specs.LinuxSeccomp) { p.Syscalls[0].Action = specs.LinuxSeccompAction(v) })
		}},
		"operators": {f.Linux.Seccomp.Operators, constants(t, "LinuxSeccompOperator"), func(v string) bool {
			return filters(func(p *specs.LinuxSeccomp) {
				p.Syscalls[0].Args = []specs.LinuxSeccompArg{{Op: specs.LinuxSeccompOperator(v)}}
			})
		}},
		"archs": {f.Linux.Seccomp.Archs, constants(t, "Arch"), func(v string) bool {
			return filters(func(p *specs.LinuxSeccomp) { p.Architectures = []specs.Arch{specs.Arch(v)} })
		}},
		"flags": {f.Linux.Seccomp.KnownFlags, constants(t, "LinuxSeccompFlag"), func(v string) bool {
			return filters(func(p *specs.LinuxSeccomp) { p.Flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlag(v)} })
		}},
		"namespaces": {f.Linux.Namespaces, constants(t, "LinuxNamespaceType"), func(v string) bool {
			return compiles(func(s *specs.Spec) {
				s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return string(n.Type) == v })
				s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.LinuxNamespaceType(v)})
			})
		}},
		"capabilities": {f.Linux.Capabilities, nil, func(v string) bool {
			return compiles(func(s *specs.Spec) { s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{v}} })
		}},
		"memory modes": {f.Linux.MemoryPolicy.Modes, constants(t, "MemoryPolicyModeType"), func(v string) bool {
			return compiles(func(s *specs.Spec) {
				s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MemoryPolicyModeType(v), Nodes: "0"}
			})
		}},
		"memory flags": {f.Linux.MemoryPolicy.Flags, constants(t, "MemoryPolicyFlagType"), func(v string) bool {
			return compiles(func(s *specs.Spec) {
				s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MemoryPolicyFlagType(v)}}
			})
		}},
		"mount options": {f.MountOptions, nil, func(v string) bool {
			m := specs.Mount{Destination: "/x", Type: "none", Source: "/y", Options: []string{"bind", v}}
			switch v {
			case "tmpcopyup":
				m = specs.Mount{Destination: "/x", Type: "tmpfs", Options: []string{v}}
			case "remount":
				m.Destination = "/proc"
			}
			return compiles(func(s *specs.Spec) { s.Mounts = append(s.Mounts, m) })
		}},
	} {
		for _, v := range append(c.known, "odd", "CAP_ODD") {
			if c.taken(v) != slices.Contains(c.listed, v) {
				t.Errorf("%s: %s is taken: %v, listed: %v", name, v, c.taken(v), slices.Contains(c.listed, v))
			}
		}
		for _, v := range c.listed {
			if !c.taken(v) {
				t.Errorf("%s: %s is listed and not taken", name, v)
			}
		}
	}
	if compiles(func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: "x"} }) || *f.Linux.IntelRdt.Enabled {
		t.Error("intelRdt is taken or listed")
	}
	if !compiles(func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth9": {}} }) {
		t.Error("network devices are not taken")
	}
}
