package cgroup

import (
	"encoding/binary"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// GuardDevices lets the processes of a group open and make only the device
// nodes that rules allow (OCI runtime specification, config-linux.md, "Allowed
// Device list"): of those that say something about a node the last one counts,
// and without one it is denied. No rules guard nothing.
//
// It is a program of the kernel's at the group in the v2 hierarchy, also on hosts
// whose other controllers are v1's (BPF_PROG_TYPE_CGROUP_DEVICE, v4.15), and stays
// until the group is removed. It is attached beside others, all of which must
// agree (BPF_F_ALLOW_MULTI). Unsupported where the kernel has none.
func (t *Tree) GuardDevices(name string, rules []specs.LinuxDeviceCgroup) error {
	if len(rules) == 0 {
		return nil
	}
	if err := t.usable(name); err != nil {
		return err
	}
	code, err := deviceProgram(rules)
	if err != nil {
		return err
	}
	fd, err := unix.Openat(t.fd(), t.dir(name), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return t.failed("open cgroup", t.dir(name), err)
	}
	defer unix.Close(fd)
	program, err := loadDeviceProgram(code)
	if err != nil {
		return guardFailed(t.dir(name), err)
	}
	defer unix.Close(program)
	attach := struct{ target, program, kind, flags, replace uint32 }{uint32(fd), uint32(program), unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI, 0}
	if _, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attach), unsafe.Sizeof(attach)); err != nil {
		return guardFailed(t.dir(name), err)
	}
	return nil
}

// OwnDevices are the rules for what every container may have: it may make any
// node, which is no access yet, and open the ones of its own /dev, as with runc.
func OwnDevices() []specs.LinuxDeviceCgroup {
	out := []specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Access: "m"}, {Allow: true, Type: "b", Access: "m"}}
	for _, n := range [][2]int64{{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 2}, {136, -1}} { // null zero full random urandom tty ptmx pts
		major, minor := n[0], n[1]
		out = append(out, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "rwm"})
	}
	return out
}

func guardFailed(dir string, err error) error {
	class := fault.Internal
	switch err {
	case unix.ENOSYS, unix.EINVAL, unix.EOPNOTSUPP:
		class = fault.Unsupported
	case unix.EPERM, unix.EACCES:
		class = fault.Denied
	}
	return fault.Wrap(class, "guard the devices of cgroup", dir, err, "the kernel needs CONFIG_CGROUP_BPF, and fiefd CAP_SYS_ADMIN or CAP_BPF and CAP_NET_ADMIN")
}

// bpf is bpf(2).
func bpf(command int, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(attr), size)
		if errno == 0 {
			return int(n), nil
		}
		if errno != unix.EINTR && errno != unix.EAGAIN { // EAGAIN: the verifier was interrupted
			return -1, errno
		}
	}
}

// loadDeviceProgram gives a program to the kernel.
func loadDeviceProgram(code []byte) (fd int, err error) {
	license := [4]byte{'G', 'P', 'L'}
	attr := struct {
		kind, count            uint32
		code, license          uint64
		logLevel, logSize      uint32
		log                    uint64
		kernelVersion, flags   uint32
		name                   [16]byte
		ifindex, expectedAttch uint32
	}{
		kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(code) / 8), name: [16]byte{'f', 'i', 'e', 'f', '_', 'd', 'e', 'v'},
		code: uint64(uintptr(unsafe.Pointer(&code[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	fd, err = bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(code)
	runtime.KeepAlive(&license)
	return fd, err
}

// The operations of a device program (instruction-set.rst) and its registers.
const (
	opLoad   = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W
	opMove   = unix.BPF_ALU | 0xb0 | unix.BPF_K
	opCopy   = unix.BPF_ALU | 0xb0 | unix.BPF_X
	opAnd    = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	opShift  = unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K
	opEqual  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	opDiffer = unix.BPF_JMP | 0x50 | unix.BPF_K
	opExit   = unix.BPF_JMP | 0x90

	verdict, node, kind, access, major, minor, scratch = 0, 1, 2, 3, 4, 5, 6 // node: the program's argument
)

// maxRules keeps a program below the 4096 instructions that any kernel takes.
const maxRules = 400

// deviceProgram compiles rules: struct bpf_cgroup_dev_ctx has the access above the
// kind of the node in its first word, then major and minor.
func deviceProgram(rules []specs.LinuxDeviceCgroup) ([]byte, error) {
	if len(rules) > maxRules {
		return nil, fault.New(fault.Invalid, "guard devices", "", "there are more than 400 rules", "use rules for all minor numbers of a kind")
	}
	var p program
	p.op(opLoad, kind, node, 0, 0)
	p.op(opCopy, access, kind, 0, 0)
	p.op(opAnd, kind, 0, 0, 0xffff)
	p.op(opShift, access, 0, 0, 16)
	p.op(opLoad, major, node, 4, 0)
	p.op(opLoad, minor, node, 8, 0)
	for _, r := range slices.Backward(rules) {
		last, err := p.rule(r)
		if err != nil {
			return nil, err
		}
		if last {
			return p.code, nil // the kernel refuses what cannot be reached
		}
	}
	p.op(opMove, verdict, 0, 0, 0)
	p.op(opExit, 0, 0, 0, 0)
	return p.code, nil
}

// program is a list of struct bpf_insn.
type program struct{ code []byte }

func (p *program) op(code, to, from int, offset int16, value int32) {
	p.code = append(p.code, byte(code), byte(from<<4|to))
	if nativeBig() {
		p.code[len(p.code)-1] = byte(to<<4 | from) // bit fields are the other way round there
	}
	p.code = binary.NativeEndian.AppendUint16(p.code, uint16(offset))
	p.code = binary.NativeEndian.AppendUint32(p.code, uint32(value))
}

func nativeBig() bool { return binary.NativeEndian.Uint16([]byte{1, 0}) != 1 }

// rule appends the test of one rule: what it does not speak of goes on to the
// next; last says that it speaks of everything. An access is allowed if all of it
// is, and denied if any of it is.
func (p *program) rule(r specs.LinuxDeviceCgroup) (last bool, err error) {
	bits, err := accessBits(r.Access)
	if err != nil {
		return false, err
	}
	var next []int // jumps to be aimed
	jump := func(code, register int, value int64) {
		next = append(next, len(p.code))
		p.op(code, register, 0, 0, int32(value))
	}
	switch r.Type {
	case "c", "u":
		jump(opDiffer, kind, unix.BPF_DEVCG_DEV_CHAR)
	case "b":
		jump(opDiffer, kind, unix.BPF_DEVCG_DEV_BLOCK)
	case "a", "":
	default:
		return false, fault.New(fault.Invalid, "use device rule of type", r.Type, "types are a, b, c and u", "")
	}
	switch {
	case bits == 7:
	case r.Allow:
		p.op(opCopy, scratch, access, 0, 0)
		p.op(opAnd, scratch, 0, 0, ^bits)
		jump(opDiffer, scratch, 0)
	default:
		p.op(opCopy, scratch, access, 0, 0)
		p.op(opAnd, scratch, 0, 0, bits)
		jump(opEqual, scratch, 0)
	}
	for _, n := range []struct {
		register int
		value    *int64
	}{{major, r.Major}, {minor, r.Minor}} {
		if n.value == nil || *n.value == -1 {
			continue
		}
		if *n.value < 0 || *n.value > 1<<31-1 {
			return false, fault.New(fault.Invalid, "use device rule", "", "a device number is out of range", "")
		}
		jump(opDiffer, n.register, *n.value)
	}
	answer := int32(0)
	if r.Allow {
		answer = 1
	}
	p.op(opMove, verdict, 0, 0, answer)
	p.op(opExit, 0, 0, 0, 0)
	for _, at := range next {
		binary.NativeEndian.PutUint16(p.code[at+2:], uint16((len(p.code)-at)/8-1))
	}
	return len(next) == 0, nil
}

// accessBits are those of the letters r, w and m; none means all.
func accessBits(letters string) (bits int32, err error) {
	if letters == "" {
		return 7, nil
	}
	for _, c := range letters {
		i := strings.IndexRune("mrw", c)
		if i < 0 {
			return 0, fault.New(fault.Invalid, "use device access", letters, "letters are r, w and m", "")
		}
		bits |= 1 << i // BPF_DEVCG_ACC_MKNOD, READ, WRITE
	}
	return bits, nil
}
