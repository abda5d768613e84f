package main

import (
	"flag"
	"os"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/harden"
	"fief/internal/kernel/seccomp"
	"fief/internal/launch"
)

// featuresCommand prints what this runtime understands (OCI runtime spec,
// features.md). Most of it is no matter of the kernel's, which the specification
// says of each field. Annotations change nothing here, so none is unsafe.
func featuresCommand(*app, *flag.FlagSet) func([]string) error {
	return func([]string) error { return printJSON(os.Stdout, known()) }
}

func known() features.Features {
	yes, no := true, false
	return features.Features{
		OCIVersionMin: "1.0.0", OCIVersionMax: specVersion,
		Hooks:        []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"},
		MountOptions: launch.MountOptions(),
		Annotations:  map[string]string{"org.opencontainers.runc.checkpoint.enabled": "false"}, // which callers of runc look for
		Linux: &features.Linux{
			Namespaces:      []string{"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"},
			Capabilities:    capabilities(),
			Cgroup:          &features.Cgroup{V1: &yes, V2: &yes, Systemd: &yes, SystemdUser: &no, Rdma: &yes},
			Seccomp:         seccompFeatures(),
			Apparmor:        &features.Apparmor{Enabled: &yes},
			Selinux:         &features.Selinux{Enabled: &yes},
			IntelRdt:        &features.IntelRdt{Enabled: &no, Schemata: &no, Monitoring: &no},
			MemoryPolicy:    &features.MemoryPolicy{Modes: launch.MemoryModes(), Flags: launch.MemoryFlags()},
			MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: &yes}},
			NetDevices:      &features.NetDevices{Enabled: &yes},
		},
	}
}

func capabilities() []string {
	var out []string
	for n := 0; ; n++ {
		name, ok := harden.CapabilityName(n)
		if !ok {
			slices.Sort(out)
			return out
		}
		out = append(out, name)
	}
}

// tsync is a flag that is taken and has no work here: there is one thread.
const tsync specs.LinuxSeccompFlag = "SECCOMP_FILTER_FLAG_TSYNC"

// seccompFeatures is what is understood of profiles, and which flags the kernel
// has.
func seccompFeatures() *features.Seccomp {
	yes := true
	f := &features.Seccomp{
		Enabled: &yes,
		Actions: []string{"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG",
			"SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"},
		Operators: []string{"SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"},
	}
	for _, a := range seccomp.Architectures() {
		f.Archs = append(f.Archs, string(a))
	}
	slices.Sort(f.Archs)
	for _, flag := range []struct {
		name specs.LinuxSeccompFlag
		bits uint
	}{
		{specs.LinuxSeccompFlagLog, unix.SECCOMP_FILTER_FLAG_LOG},
		{specs.LinuxSeccompFlagSpecAllow, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW},
		{tsync, 0},
		{specs.LinuxSeccompFlagWaitKillableRecv, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV},
	} {
		f.KnownFlags = append(f.KnownFlags, string(flag.name))
		if kernelTakes(flag.bits) {
			f.SupportedFlags = append(f.SupportedFlags, string(flag.name))
		}
	}
	return f
}

// kernelTakes asks seccomp(2) about flags with a filter that is not there: EFAULT
// says that it has got as far as that, EINVAL that it does not know one.
func kernelTakes(flags uint) bool {
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), 0)
	return errno == unix.EFAULT
}
