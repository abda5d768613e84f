package cgroup

import (
	"errors"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ListDevices writes rules into the v1 hierarchy of devices as well, where the
// group exists there: engines and tools that know v1 alone read them in
// devices.list. It never is what a container is guarded by: that is GuardDevices,
// of whose rules it lists what v1 can say. v1 keeps a default and exceptions from
// it (cgroup-v1/devices.rst), so that only rules which allow and follow a denial
// of everything mean the same there; other rules leave v1 as it is.
//
// What the group above does not allow cannot be listed (EPERM), and is not
// allowed either.
func (t *Tree) ListDevices(name string, rules []specs.LinuxDeviceCgroup) error {
	h, ok := t.in("devices")
	if !ok {
		return nil
	}
	if err := t.usable(name); err != nil {
		return err
	}
	lines, ok := exceptions(rules)
	if !ok {
		return nil
	}
	dir := t.dir(name)
	switch err := write(h.fd(), dir+"/devices.deny", "a"); {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINVAL): // no such group, or groups below have rules of their own
		return nil
	case err != nil:
		return t.failed("list devices in", dir, err)
	}
	for _, line := range lines {
		if err := write(h.fd(), dir+"/devices.allow", line); err != nil && !errors.Is(err, unix.EPERM) {
			return t.failed("list device "+line+" in", dir, err)
		}
	}
	return nil
}

// exceptions are rules as lines of devices.allow; false for rules that v1 would
// understand otherwise.
func exceptions(rules []specs.LinuxDeviceCgroup) (lines []string, ok bool) {
	for _, r := range rules {
		everything := (r.Type == "" || r.Type == "a") && any64(r.Major) && any64(r.Minor)
		bits, err := accessBits(r.Access)
		switch {
		case err != nil, everything && r.Allow:
			return nil, false
		case everything && bits == 7:
			lines = nil
			continue
		case !r.Allow:
			return nil, false
		}
		kinds := []string{r.Type}
		switch r.Type {
		case "", "a":
			kinds = []string{"b", "c"}
		case "u":
			kinds = []string{"c"}
		}
		for _, kind := range kinds {
			lines = append(lines, kind+" "+number64(r.Major)+":"+number64(r.Minor)+" "+letters(bits))
		}
	}
	return slices.Compact(lines), true
}

func any64(n *int64) bool { return n == nil || *n == -1 }

func number64(n *int64) string {
	if any64(n) {
		return "*"
	}
	return strconv.FormatInt(*n, 10)
}

// letters are those of an access, in the order of devices.list.
func letters(bits int32) (out string) {
	for i, letter := range []string{"r", "w", "m"} {
		if bits&[]int32{unix.BPF_DEVCG_ACC_READ, unix.BPF_DEVCG_ACC_WRITE, unix.BPF_DEVCG_ACC_MKNOD}[i] != 0 {
			out += letter
		}
	}
	return out
}
