package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/launch"
	"fief/internal/words/fault"
)

// TestConfigLimits: what is too large is refused by name, before anything is
// opened for it.
func TestConfigLimits(t *testing.T) {
	name := filepath.Join(t.TempDir(), "config.json")
	huge, err := os.Create(name)
	if err == nil {
		err = huge.Truncate(1 << 30)
	}
	if err != nil {
		t.Fatal(err)
	}
	huge.Close()
	if _, _, err := loadSpec(name); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "larger than 16 MiB") {
		t.Errorf("1 GiB: %v", err)
	}
	many := func(field string, entry string, n int) string {
		return `{"ociVersion":"1.3.0","root":{"path":"r"},"linux":{` + field + `:[` + strings.TrimSuffix(strings.Repeat(entry+",", n), ",") + `]}}`
	}
	mounts := `{"ociVersion":"1.3.0","root":{"path":"r"},"linux":{},"mounts":[{}` + strings.Repeat(`,{}`, 1e6-1) + `]}`
	for want, text := range map[string]string{
		"use mounts of config.json: 1000000 entries":              mounts,
		"use linux.devices of config.json: 8193 entries":          many(`"devices"`, `{"path":"/x"}`, 8193),
		"use linux.maskedPaths of config.json: 8193 entries":      many(`"maskedPaths"`, `"/x"`, 8193),
		"exceeded max depth":                                      `{"annotations":` + strings.Repeat(`{"a":`, 20000),
		"cannot unmarshal string into Go struct field":            `{"process":{"args":"sh"}}`,
		"cannot unmarshal number -1 into Go struct field":         `{"process":{"user":{"uid":-1}}}`,
		"cannot unmarshal number 4294967296 into Go struct field": `{"linux":{"uidMappings":[{"hostID":4294967296}]}}`,
	} {
		_, err := parseSpec("config.json", []byte(text))
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, want %s", text, err, want)
		}
	}
}

// FuzzConfig: every config.json has a plan, which encodes, or an error that says
// what is wrong, and is text.
func FuzzConfig(f *testing.F) {
	for _, change := range []func(*specs.Spec){
		func(*specs.Spec) {},
		func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/../../etc", Source: "..", Options: []string{"rbind", "ridmap", "rro"}})
		},
		func(s *specs.Spec) {
			s.Process.User.AdditionalGids = []uint32{1<<32 - 1}
			s.Process.Cwd = "\xff\x00/.."
		},
		func(s *specs.Spec) {
			s.Linux.UIDMappings[0].Size = 1<<32 - 1
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: -1 << 63}}
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
		},
		func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/../x", Type: "c", Major: -1, Minor: 1 << 40}}
			s.Linux.Sysctl = map[string]string{"net/../vm": "\x00"}
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedDeadline, Nice: -1 << 31}
			s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0-4294967295"}
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "99999999"}
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"read", ""}, Action: specs.ActAllow}}}
		},
	} {
		s := template()
		change(s)
		text, err := json.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, "id")
	}
	f.Add([]byte(`{"ociVersion":"1.","root":{"path":"/"},"linux":{},"process":{"args":[""]}}`), "..")
	compiler := newCompiler()
	f.Fuzz(func(t *testing.T, text []byte, id string) {
		if validID(id) == nil && (filepath.Base(id) != id || id == ".." || !utf8.ValidString(id)) {
			t.Errorf("the id %q is taken", id)
		}
		s, err := parseSpec("config.json", text)
		if err == nil {
			err = mayName(s)
		}
		if err == nil {
			err = compileOnly(compiler, s, id)
		}
		if err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
	})
}

// compileOnly makes the plan of a spec and that of exec in it, and encodes both.
func compileOnly(compiler *launch.Compiler, s *specs.Spec, id string) error {
	opt := launch.Options{ID: id, Gate: true, Assists: true}
	p, err := compiler.Container(s, opt)
	if err != nil {
		return err
	}
	defer compiler.Release(&p)
	if _, err := p.Encode(); err != nil {
		return err
	}
	for i, m := range s.Mounts {
		launch.Prepared(s, i)
		launch.CopiesUp(m)
		launch.BindAttr(m.Options, true)
		mapOf(m.UIDMappings)
	}
	e, err := compiler.Exec(s.Process, s, opt)
	if err != nil {
		return err
	}
	defer compiler.Release(&e)
	_, err = e.Encode()
	return err
}
