package harden

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/sys/capability"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// allCaps is the word by which --cap-add and --cap-drop mean every capability.
const allCaps = "ALL"

// DefaultCaps are the capabilities of a container that asks for nothing: the
// fourteen of Docker, in its order.
func DefaultCaps() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
		"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
}

// Capability is the number of a capability by name, in either case, with or
// without CAP_.
func Capability(name string) (number int, ok bool) {
	name = strings.TrimPrefix(strings.ToLower(name), "cap_")
	i := slices.IndexFunc(capability.ListKnown(), func(c capability.Cap) bool { return c.String() == name })
	return i, i >= 0
}

// CapabilityName is the name of a capability ("CAP_CHOWN"); false for numbers
// this build has no name for.
func CapabilityName(number int) (string, bool) {
	if number < 0 || number >= len(capability.ListKnown()) {
		return "", false
	}
	return "CAP_" + strings.ToUpper(capability.Cap(number).String()), true
}

// CapMask is the set of names as the kernel's bit mask. An unknown name is an
// Invalid fault: to leave it out could leave a process with less, or in a
// bounding set with more, than was meant.
func CapMask(names []string) (uint64, error) {
	var mask uint64
	for _, name := range names {
		n, ok := Capability(name)
		if !ok {
			return 0, fault.Say(fault.Invalid, fmt.Sprintf("unknown capability: %q", name))
		}
		mask |= 1 << n
	}
	return mask, nil
}

// LastCap is the highest capability this kernel knows. It is asked for once.
func LastCap() (int, error) {
	last, err := capability.LastCap()
	return int(last), fault.Wrap(fault.Internal, "read", "/proc/sys/kernel/cap_last_cap", err, "")
}

// Bounding are the capabilities that this process and those it starts can have
// at most (PR_CAPBSET_READ(2const)), of a kernel whose highest is last.
func Bounding(last int) ([]string, error) {
	var out []string
	for n := range last + 1 {
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0)
		if err != nil {
			return nil, fault.Wrap(fault.Internal, "read", "capability bounding set", err, "")
		}
		if name, ok := CapabilityName(n); ok && has == 1 {
			out = append(out, name)
		}
	}
	return out, nil
}

// Caps is what a container gets that adds and drops capabilities as on
// Docker's command line, on a kernel whose highest capability is last. ALL
// among the added starts from all; ALL among the dropped leaves just the added.
// Errors are Invalid, in Docker's words.
func Caps(add, drop []string, last int) ([]string, error) {
	added, err := capNames("CapAdd", add, last)
	if err != nil {
		return nil, err
	}
	dropped, err := capNames("CapDrop", drop, last)
	if err != nil {
		return nil, err
	}
	var out []string
	switch {
	case slices.Contains(added, allCaps):
		for n := range last + 1 {
			if name, ok := CapabilityName(n); ok {
				out = append(out, name)
			}
		}
		return without(out, dropped), nil
	case slices.Contains(dropped, allCaps):
		out = added
	default:
		out = append(without(DefaultCaps(), dropped), added...)
	}
	var once []string
	for _, name := range out {
		if !slices.Contains(once, name) {
			once = append(once, name)
		}
	}
	return once, nil
}

func without(names, dropped []string) []string {
	return slices.DeleteFunc(names, func(name string) bool { return slices.Contains(dropped, name) })
}

// capNames brings names to the form CAP_X.
func capNames(field string, names []string, last int) ([]string, error) {
	var out []string
	for _, name := range names {
		upper := strings.ToUpper(name)
		if upper == allCaps {
			out = append(out, upper)
			continue
		}
		if !strings.HasPrefix(upper, "CAP_") {
			upper = "CAP_" + upper
		}
		n, ok := Capability(upper)
		if !ok {
			return nil, fault.Say(fault.Invalid, fmt.Sprintf("invalid %s: unknown capability: %q", field, upper))
		}
		if n > last {
			return nil, fault.Say(fault.Invalid, fmt.Sprintf("invalid %s: capability not supported by your kernel or not available in the current environment: %q", field, upper))
		}
		out = append(out, upper)
	}
	return out, nil
}
