package runtime_test

import (
	"os"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/harden"
	"fief/internal/launch/launchtest"
)

// capsHere is the bounding set of this process, by name: what a container
// without a user namespace can be given.
func capsHere(t *testing.T) (names []string, mask string) {
	t.Helper()
	mask = field(readFile(t, "/proc/self/status"), "CapBnd")
	bits, err := strconv.ParseUint(mask, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 64 {
		if bits>>n&1 == 0 {
			continue
		}
		name, ok := harden.CapabilityName(n)
		if !ok {
			t.Fatalf("capability %d has no name", n)
		}
		names = append(names, name)
	}
	return names, mask
}

// TestPrivileged: what an engine asks for as --privileged, without a user
// namespace: all capabilities, devices of the host as nodes of the container's
// own, writable sysfs and cgroups, nothing masked, no filter.
func TestPrivileged(t *testing.T) {
	b := newBox(t)
	os.Lchown(b.root, 0, 0)
	b.opt.Cgroup, b.opt.ID = true, "privileged"
	s := launchtest.Spec("sh", "-c", `
cat /proc/self/status
test -w /sys/kernel/mm/transparent_hugepage/enabled && grep ' /sys ' /proc/self/mounts
mkdir /sys/fs/cgroup/inner && rmdir /sys/fs/cgroup/inner && echo cgroups writable
stat -c '%n %F %t:%T %a %u:%g' /dev/full /dev/deep/er/block /dev/mem
dd if=/dev/deep/er/zero of=/dev/null bs=4 count=1 2>/dev/null && echo device works
grep -c . /proc/keys > /dev/null && echo keys readable
mount -t tmpfs x /tmp && echo may mount
`)
	unmapped(s)
	powerful(t, s)
	names, mask := capsHere(t)
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: names, Effective: names, Permitted: names}
	mode, uid, gid := os.FileMode(0o640), uint32(3), uint32(6)
	s.Linux.Devices = []specs.LinuxDevice{
		{Path: "/dev/deep/er/block", Type: "b", Major: 7, Minor: 200, FileMode: &mode, UID: &uid, GID: &gid},
		{Path: "/dev/deep/er/zero", Type: "c", Major: 1, Minor: 5},
		{Path: "/dev/mem", Type: "c", Major: 1, Minor: 1, FileMode: &mode},
		{Path: "/dev/full", Type: "c", Major: 1, Minor: 7},
	}
	done := b.provide(s)
	defer done()
	out, code := b.run(s)
	for _, want := range []string{"/dev/full character special file 1:7 666 0:0\n", "/dev/deep/er/block block special file 7:c8 640 3:6\n", "/dev/mem character special file 1:1 640 0:0\n",
		"cgroups writable\n", "device works\n", "keys readable\n", "may mount\n", "sysfs /sys sysfs rw,"} {
		if !strings.Contains(out, want) {
			t.Errorf("missing %q", want)
		}
	}
	for name, want := range map[string]string{"CapEff": mask, "CapBnd": mask, "Seccomp": "0", "NoNewPrivs": "0"} {
		if got := field(out, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if code != 0 || t.Failed() {
		t.Errorf("exit code %d: %s", code, out)
	}
	var st unix.Stat_t
	if err := unix.Stat("/dev/full", &st); err != nil || st.Rdev != unix.Mkdev(1, 7) {
		t.Error("the host's device changed")
	}
}
