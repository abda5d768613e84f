package linktest

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inside says to a test binary that it is in a network namespace of its own.
const inside = "FIEF_TEST_NETNS"

// Main is a TestMain that runs the tests in a new network namespace with its
// loopback up: whatever they and the daemons they start do to it is nobody
// else's. An ordinary user's tests run where they are, and skip.
func Main(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run()
	}
	if os.Getenv(inside) != "" {
		if err := raise("lo"); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			return 1
		}
		return m.Run()
	}
	runtime.LockOSThread() // it is the thread's end that Pdeathsig tells of (prctl(2))
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if cmd.ProcessState == nil {
		os.Stderr.WriteString(err.Error() + "\n")
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

// Up sets a device of the namespace up.
func (s Space) Up(t testing.TB, name string) {
	t.Helper()
	if err := s.Do(func() error { return raise(name) }); err != nil {
		t.Fatal(err)
	}
}

func raise(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}
