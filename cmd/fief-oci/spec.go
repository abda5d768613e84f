package main

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/kernel/seccomp"
	"fief/internal/launch"
	"fief/internal/words/fault"
)

const (
	specVersion  = "1.3.0"
	buildVersion = "0.1.0"
)

// newCompiler joins launch with the compiler of system call filters.
func newCompiler() *launch.Compiler {
	return &launch.Compiler{Filter: seccomp.Compile}
}

func specCommand(_ *app, set *flag.FlagSet) func([]string) error {
	bundle := set.String("bundle", ".", "directory to write config.json to")
	set.StringVar(bundle, "b", ".", "short for --bundle")
	set.Bool("rootless", false, "ignored")
	return func([]string) error {
		f, err := os.OpenFile(filepath.Join(*bundle, "config.json"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, fs.ErrExist) {
			return fault.New(fault.Exists, "write", "config.json", "it exists", "remove it first")
		}
		if err != nil {
			return fault.Wrap(fault.Internal, "write", "config.json", err, "")
		}
		if err := printJSON(f, template()); err != nil {
			f.Close()
			return fault.Wrap(fault.Internal, "write", "config.json", err, "")
		}
		return f.Close()
	}
}

// template is the config of `fief-oci spec`: a shell in a container of all
// namespaces, whose root is host id 524288, the first of systemd's container
// range.
func template() *specs.Spec {
	caps := []string{"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"}
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 524288, Size: 65536}}
	var namespaces []specs.LinuxNamespace
	for _, t := range []specs.LinuxNamespaceType{specs.UserNamespace, specs.MountNamespace, specs.PIDNamespace, specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.CgroupNamespace} {
		namespaces = append(namespaces, specs.LinuxNamespace{Type: t})
	}
	strict := []string{"nosuid", "noexec", "nodev"}
	return &specs.Spec{
		Version:  specVersion,
		Hostname: "fief",
		Root:     &specs.Root{Path: "rootfs", Readonly: true},
		Process: &specs.Process{
			Terminal: true, Args: []string{"sh"}, Cwd: "/", NoNewPrivileges: true,
			Env:          []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
			Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 1024}},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: strict},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: append([]string{"mode=1777", "size=65536k"}, strict...)},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: strict},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: append([]string{"ro"}, strict...)},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: append([]string{"ro"}, strict...)},
		},
		Linux: &specs.Linux{
			UIDMappings: ids, GIDMappings: ids, Namespaces: namespaces,
			MaskedPaths: []string{"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
				"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}
