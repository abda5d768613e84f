package main

import (
	"encoding/json"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// decode reads a config.json, as json.Unmarshal into a specs.Spec does.
//
// The first use of a type in a process costs package encoding/json more than the
// reading of a document: it walks all types below it, and those of the other
// platforms and of rare sections are most of specs.Spec (1.6 ms of processor time
// of 24 that a whole run takes, against 0.7). Here a section's types are walked
// when the section is there.
func decode(raw []byte, s *specs.Spec) error {
	var d document
	if json.Unmarshal(raw, &d) != nil {
		return json.Unmarshal(raw, s) // whose error names the field from the top
	}
	d.fill(s)
	return nil
}

// later is a part of a document whose type is walked only if the part is there.
type later[T any] struct{ value *T }

// UnmarshalJSON is called for null too.
func (l *later[T]) UnmarshalJSON(raw []byte) error { return json.Unmarshal(raw, &l.value) }

// document is specs.Spec, field by field.
type document struct {
	Version     string               `json:"ociVersion"`
	Process     *process             `json:"process"`
	Root        *specs.Root          `json:"root"`
	Hostname    string               `json:"hostname"`
	Domainname  string               `json:"domainname"`
	Mounts      []specs.Mount        `json:"mounts"`
	Hooks       later[specs.Hooks]   `json:"hooks"`
	Annotations map[string]string    `json:"annotations"`
	Linux       *linux               `json:"linux"`
	Solaris     later[specs.Solaris] `json:"solaris"`
	Windows     later[specs.Windows] `json:"windows"`
	VM          later[specs.VM]      `json:"vm"`
	ZOS         later[specs.ZOS]     `json:"zos"`
	FreeBSD     later[specs.FreeBSD] `json:"freebsd"`
}

func (d *document) fill(s *specs.Spec) {
	*s = specs.Spec{
		Version: d.Version, Root: d.Root, Hostname: d.Hostname, Domainname: d.Domainname, Mounts: d.Mounts, Hooks: d.Hooks.value,
		Annotations: d.Annotations, Solaris: d.Solaris.value, Windows: d.Windows.value, VM: d.VM.value, ZOS: d.ZOS.value, FreeBSD: d.FreeBSD.value,
	}
	if d.Process != nil {
		s.Process = d.Process.spec()
	}
	if d.Linux != nil {
		s.Linux = d.Linux.spec()
	}
}

// process is specs.Process.
type process struct {
	Terminal        bool                         `json:"terminal"`
	ConsoleSize     later[specs.Box]             `json:"consoleSize"`
	User            specs.User                   `json:"user"`
	Args            []string                     `json:"args"`
	CommandLine     string                       `json:"commandLine"`
	Env             []string                     `json:"env"`
	Cwd             string                       `json:"cwd"`
	Capabilities    *specs.LinuxCapabilities     `json:"capabilities"`
	Rlimits         []specs.POSIXRlimit          `json:"rlimits"`
	NoNewPrivileges bool                         `json:"noNewPrivileges"`
	ApparmorProfile string                       `json:"apparmorProfile"`
	OOMScoreAdj     *int                         `json:"oomScoreAdj"`
	Scheduler       later[specs.Scheduler]       `json:"scheduler"`
	SelinuxLabel    string                       `json:"selinuxLabel"`
	IOPriority      later[specs.LinuxIOPriority] `json:"ioPriority"`
	ExecCPUAffinity later[specs.CPUAffinity]     `json:"execCPUAffinity"`
}

func (p *process) spec() *specs.Process {
	return &specs.Process{
		Terminal: p.Terminal, ConsoleSize: p.ConsoleSize.value, User: p.User, Args: p.Args, CommandLine: p.CommandLine, Env: p.Env, Cwd: p.Cwd,
		Capabilities: p.Capabilities, Rlimits: p.Rlimits, NoNewPrivileges: p.NoNewPrivileges, ApparmorProfile: p.ApparmorProfile,
		OOMScoreAdj: p.OOMScoreAdj, Scheduler: p.Scheduler.value, SelinuxLabel: p.SelinuxLabel, IOPriority: p.IOPriority.value,
		ExecCPUAffinity: p.ExecCPUAffinity.value,
	}
}

// linux is specs.Linux.
type linux struct {
	UIDMappings       []specs.LinuxIDMapping                  `json:"uidMappings"`
	GIDMappings       []specs.LinuxIDMapping                  `json:"gidMappings"`
	Sysctl            map[string]string                       `json:"sysctl"`
	Resources         later[specs.LinuxResources]             `json:"resources"`
	CgroupsPath       string                                  `json:"cgroupsPath"`
	Namespaces        []specs.LinuxNamespace                  `json:"namespaces"`
	Devices           later[[]specs.LinuxDevice]              `json:"devices"`
	NetDevices        later[map[string]specs.LinuxNetDevice]  `json:"netDevices"`
	Seccomp           later[specs.LinuxSeccomp]               `json:"seccomp"`
	RootfsPropagation string                                  `json:"rootfsPropagation"`
	MaskedPaths       []string                                `json:"maskedPaths"`
	ReadonlyPaths     []string                                `json:"readonlyPaths"`
	MountLabel        string                                  `json:"mountLabel"`
	IntelRdt          later[specs.LinuxIntelRdt]              `json:"intelRdt"`
	MemoryPolicy      later[specs.LinuxMemoryPolicy]          `json:"memoryPolicy"`
	Personality       later[specs.LinuxPersonality]           `json:"personality"`
	TimeOffsets       later[map[string]specs.LinuxTimeOffset] `json:"timeOffsets"`
}

func (l *linux) spec() *specs.Linux {
	s := &specs.Linux{
		UIDMappings: l.UIDMappings, GIDMappings: l.GIDMappings, Sysctl: l.Sysctl, Resources: l.Resources.value, CgroupsPath: l.CgroupsPath,
		Namespaces: l.Namespaces, Seccomp: l.Seccomp.value, RootfsPropagation: l.RootfsPropagation, MaskedPaths: l.MaskedPaths,
		ReadonlyPaths: l.ReadonlyPaths, MountLabel: l.MountLabel, IntelRdt: l.IntelRdt.value, MemoryPolicy: l.MemoryPolicy.value,
		Personality: l.Personality.value,
	}
	if l.Devices.value != nil {
		s.Devices = *l.Devices.value
	}
	if l.NetDevices.value != nil {
		s.NetDevices = *l.NetDevices.value
	}
	if l.TimeOffsets.value != nil {
		s.TimeOffsets = *l.TimeOffsets.value
	}
	return s
}
