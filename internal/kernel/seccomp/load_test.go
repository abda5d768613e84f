package seccomp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// childEnv makes the test binary load a filter on its one locked thread, do
// what the value names, and exit.
const childEnv = "FIEF_TEST_SECCOMP"

func TestMain(m *testing.M) {
	if what := os.Getenv(childEnv); what != "" {
		runtime.LockOSThread()
		child(what)
	}
	os.Exit(m.Run())
}

// allowBut lets everything through but the calls of s.
func allowBut(s ...specs.LinuxSyscall) *specs.LinuxSeccomp {
	return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86}, Syscalls: s}
}

func child(what string) {
	name, file, _ := strings.Cut(what, " ")
	errno := uint(7)
	refuse := func(call string) *specs.LinuxSeccomp {
		return allowBut(specs.LinuxSyscall{Names: []string{call}, Action: specs.ActErrno, ErrnoRet: &errno})
	}
	switch name {
	case "default":
		load(defaultProfile(&testing.T{}))
		docker()
		fail(unix.Exec("/bin/true", []string{"true"}, nil))
	case "kill":
		load(allowBut(specs.LinuxSyscall{Names: []string{"getppid"}, Action: specs.ActKillProcess}))
		unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
		fail(errors.New("still alive"))
	case "long":
		load(longProfile())
		_, _, err := unix.RawSyscall(unix.SYS_PERSONALITY, 0xffffffff, 0, 0)
		fail(fmt.Errorf("personality: %w", err))
	case "bare":
	case "getppid", "socket":
		load(refuse(name))
	case "unlisted":
		p := refuse("getppid")
		p.Architectures = nil
		load(p)
	}
	fail(unix.Exec(file, []string{"x86"}, nil))
}

func fail(err error) {
	fmt.Println(err)
	os.Exit(99)
}

func load(p *specs.LinuxSeccomp) {
	filter, flags, err := Compile(p)
	if err != nil {
		fail(err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		fail(err)
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(&prog))); errno != 0 {
		fail(errno)
	}
}

// docker checks the default profile from inside.
func docker() {
	for _, c := range []struct {
		what     string
		nr, a, b uintptr
		want     syscall.Errno
	}{
		{"getpid", unix.SYS_GETPID, 0, 0, 0},
		{"unshare", unix.SYS_UNSHARE, unix.CLONE_NEWNS, 0, unix.EPERM},
		{"clone3", unix.SYS_CLONE3, 0, 0, unix.ENOSYS},
		{"the future", 5000, 0, 0, unix.ENOSYS},
		{"-1", ^uintptr(0), 0, 0, unix.ENOSYS},
		{"AF_UNIX", unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM, 0},
		{"AF_ALG", unix.SYS_SOCKET, unix.AF_ALG, unix.SOCK_SEQPACKET, unix.EPERM},
		{"AF_VSOCK", unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM, unix.EPERM},
		{"personality query", unix.SYS_PERSONALITY, 0xffffffff, 0, 0},
		{"personality", unix.SYS_PERSONALITY, 0x1234, 0, unix.EPERM},
		{"keyctl", unix.SYS_KEYCTL, 0, 0, unix.EPERM},
	} {
		if _, _, errno := unix.RawSyscall(c.nr, c.a, c.b, 0); errno != c.want {
			fail(fmt.Errorf("%s: %w, want %d", c.what, errno, c.want))
		}
	}
}

// longProfile has more conditions than a conditional jump can pass over, the
// call that matters last.
func longProfile() *specs.LinuxSeccomp {
	p := allowBut()
	errno := uint(7)
	for i := range 400 {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{"personality"}, Action: specs.ActErrno,
			Args: []specs.LinuxSeccompArg{{Index: 0, Value: uint64(i)<<32 | 5, Op: specs.OpEqualTo}}})
	}
	p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{"personality"}, Action: specs.ActErrno, ErrnoRet: &errno,
		Args: []specs.LinuxSeccompArg{{Index: 0, Value: 0xffffffff, Op: specs.OpEqualTo}}})
	return p
}

func runChild(t *testing.T, what string) (syscall.WaitStatus, string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+what)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.Sys().(syscall.WaitStatus), string(out)
}

func TestKernelTakesTheFilter(t *testing.T) {
	if _, ok := machineOf(runtime.GOARCH); !ok {
		t.Skip("kernel: no system call table for " + runtime.GOARCH)
	}
	if status, out := runChild(t, "default"); status.ExitStatus() != 0 {
		t.Errorf("default profile: status %#x\n%s", status, out)
	}
	if status, out := runChild(t, "kill"); status.Signal() != unix.SIGSYS {
		t.Errorf("SCMP_ACT_KILL_PROCESS: status %#x\n%s", status, out)
	}
	if status, out := runChild(t, "long"); !strings.Contains(out, syscall.Errno(7).Error()) {
		t.Errorf("long jumps: status %#x\n%s", status, out)
	}
}

func TestKernel32Bit(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("kernel: 32-bit x86 programs need an x86_64 kernel")
	}
	getppid, socket := program(t, 64, 0), program(t, 102, 1) // socketcall(SYS_SOCKET, NULL)
	if status, _ := runChild(t, "bare "+getppid); status.ExitStatus() == 99 {
		t.Skip("kernel: no 32-bit emulation")
	}
	if status, out := runChild(t, "getppid "+getppid); status.ExitStatus() != 7 {
		t.Errorf("getppid: status %#x\n%s", status, out)
	}
	if status, out := runChild(t, "socket "+socket); status.ExitStatus() != 7 {
		t.Errorf("socketcall: status %#x\n%s", status, out)
	}
	if status, out := runChild(t, "getppid "+socket); status.ExitStatus() != int(unix.EFAULT) {
		t.Errorf("another call: status %#x\n%s", status, out)
	}
	if status, out := runChild(t, "unlisted "+getppid); status.Signal() != unix.SIGSYS {
		t.Errorf("unlisted ABI: status %#x\n%s", status, out)
	}
}

// program writes a 32-bit executable that makes one system call and exits with
// the negated result.
func program(t *testing.T, number, arg uint32) string {
	t.Helper()
	const base, headers = 0x10000, 52 + 32
	code := binary.LittleEndian.AppendUint32([]byte{0xb8}, number)          // mov eax, number
	code = binary.LittleEndian.AppendUint32(append(code, 0xbb), arg)        // mov ebx, arg
	code = append(code, 0x31, 0xc9, 0xcd, 0x80, 0xf7, 0xd8, 0x89, 0xc3)     // xor ecx, ecx; int 0x80; neg eax; mov ebx, eax
	code = append(code, 0xb8, 1, 0, 0, 0, 0xcd, 0x80)                       // mov eax, 1; int 0x80
	elf := append([]byte("\x7fELF\x01\x01\x01"), make([]byte, 9)...)        // 32 bits, little-endian
	elf = append(elf, 2, 0, 3, 0, 1, 0, 0, 0)                               // executable, EM_386
	for _, v := range []uint32{base + headers, 52, 0, 0, 52 | 32<<16, 1, 0, // entry, program headers, one of them
		1, 0, base, base, headers + uint32(len(code)), headers + uint32(len(code)), 5, 0x1000} {
		elf = binary.LittleEndian.AppendUint32(elf, v)
	}
	path := filepath.Join(t.TempDir(), "x86")
	if err := os.WriteFile(path, append(elf, code...), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
