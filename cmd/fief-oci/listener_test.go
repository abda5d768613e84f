package main

import (
	"encoding/json"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// notification and response are struct seccomp_notif and seccomp_notif_resp
// (linux/seccomp.h).
type notification struct {
	id         uint64
	pid, flags uint32
	nr         int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

type response struct {
	id    uint64
	val   int64
	errno int32
	flags uint32
}

// agent answers every call of mkdirat and mkdir with an errno, for as many
// connections as it is asked, and returns the states it was sent.
func agent(t *testing.T, socket string, errno unix.Errno) <-chan specs.ContainerProcessState {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	states := make(chan specs.ContainerProcessState, 10)
	go func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			text, oob := make([]byte, 64<<10), make([]byte, 64)
			n, oobn, _, _, _ := conn.ReadMsgUnix(text, oob)
			var s specs.ContainerProcessState
			json.Unmarshal(text[:n], &s)
			list, _ := unix.ParseSocketControlMessage(oob[:oobn])
			if len(list) == 1 {
				if fds, _ := unix.ParseUnixRights(&list[0]); len(fds) == 1 {
					go answerAll(fds[0], errno)
				}
			}
			// Nothing follows: the runtime closes the connection.
			if n, err := conn.Read(text); n != 0 || err == nil {
				s.Version = "more than one message"
			}
			conn.Close()
			states <- s
		}
	}()
	return states
}

func answerAll(fd int, errno unix.Errno) {
	defer unix.Close(fd)
	const receive, reply = 0xc0502100, 0xc0182101 // SECCOMP_IOCTL_NOTIF_RECV, _SEND
	for {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); err == unix.EINTR {
			continue
		}
		if poll[0].Revents&unix.POLLIN == 0 {
			return // no process is left
		}
		var n notification
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), receive, uintptr(unsafe.Pointer(&n))); e != 0 {
			continue
		}
		r := response{id: n.id, errno: -int32(errno)}
		unix.Syscall(unix.SYS_IOCTL, uintptr(fd), reply, uintptr(unsafe.Pointer(&r)))
	}
}

// TestListener: an agent outside decides about system calls of the container and
// of exec's processes, with no_new_privs and without, and is told whose they are.
func TestListener(t *testing.T) {
	b := newBench(t)
	socket := filepath.Join(b.dir, "agent")
	states := agent(t, socket, unix.EXDEV)
	for _, private := range []bool{true, false} {
		listen := func(s *specs.Spec) {
			s.Process.NoNewPrivileges = private
			s.Annotations = map[string]string{"an": "annotation"}
			s.Linux.Seccomp = &specs.LinuxSeccomp{
				DefaultAction: specs.ActAllow, ListenerPath: socket, ListenerMetadata: "some data",
				Flags:    []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv, specs.LinuxSeccompFlagLog, "SECCOMP_FILTER_FLAG_TSYNC"},
				Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActNotify}},
			}
		}
		b.config(func(s *specs.Spec) { listen(s); s.Process.Args = []string{"sleep", "1000"} })
		t.Cleanup(func() { b.run("delete", "--force", "one") })
		b.ok("create", "one")
		first := <-states
		b.ok("start", "one")
		if out, code := b.run("exec", "one", "mkdir", "/dev/shm/x"); code != 1 || !strings.Contains(out, "Invalid cross-device link") {
			t.Errorf("exit code %d: %s", code, out)
		}
		second := <-states
		for i, s := range []specs.ContainerProcessState{first, second} {
			status := []specs.ContainerState{specs.StateCreating, specs.StateRunning}[i]
			if s.Version != specVersion || strings.Join(s.Fds, " ") != "seccompFd" || s.Metadata != "some data" || s.State.ID != "one" ||
				s.State.Status != status || s.State.Bundle != b.bundle || s.State.Annotations["an"] != "annotation" || s.State.Pid != first.Pid || (s.Pid == first.Pid) != (i == 0) {
				t.Errorf("%+v", s)
			}
		}
		b.ok("delete", "--force", "one")
		b.config(func(s *specs.Spec) { listen(s); s.Process.Args = []string{"mkdir", "/dev/shm/x"} })
		b.expect(1, "Invalid cross-device link", "run", "one")
		<-states
	}
	notify := specs.LinuxSyscall{Names: []string{"mkdir"}, Action: specs.ActNotify}
	profile := func(p specs.LinuxSeccomp) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Linux.Seccomp = &p }
	}
	b.refuses("cannot send listener to seccomp agent", profile(specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: socket + "x", Syscalls: []specs.LinuxSyscall{notify}}))
	b.refuses("needs a listenerPath", profile(specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{notify}}))
	b.sees("", ":", profile(specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/nosuch"}))
}

// TestSeccompActions: what each action does to a process.
func TestSeccompActions(t *testing.T) {
	b := newBench(t)
	errno := uint(unix.EXDEV)
	for _, c := range []struct {
		entry specs.LinuxSyscall
		code  int
		want  string
	}{
		{specs.LinuxSyscall{Action: specs.ActErrno, ErrnoRet: &errno}, 1, "Invalid cross-device link"},
		{specs.LinuxSyscall{Action: specs.ActErrno}, 1, "Operation not permitted"},
		{specs.LinuxSyscall{Action: specs.ActKill}, 128 + 31, ""},
		{specs.LinuxSyscall{Action: specs.ActKillThread}, 128 + 31, ""},
		{specs.LinuxSyscall{Action: specs.ActKillProcess}, 128 + 31, ""},
		{specs.LinuxSyscall{Action: specs.ActTrap}, 128 + 31, ""},
		{specs.LinuxSyscall{Action: specs.ActTrace}, 1, "Function not implemented"}, // without a tracer
		{specs.LinuxSyscall{Action: specs.ActLog}, 0, ""},
	} {
		b.config(func(s *specs.Spec) {
			s.Process.Args = []string{"sh", "-c", "mkdir /dev/shm/x"}
			c.entry.Names = []string{"mkdir", "mkdirat"}
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32, specs.ArchAARCH64, specs.ArchARM}, Syscalls: []specs.LinuxSyscall{c.entry}}
		})
		b.expect(c.code, c.want, "run", "one")
	}
}

// TestOldFilter: a profile from before close_range(2) and faccessat2(2), loaded
// before the container's user is taken on, lets the container start; and what is
// open for the start is not the program's.
func TestOldFilter(t *testing.T) {
	b := newBench(t)
	errno := uint(unix.EPERM)
	old := func(s *specs.Spec) {
		s.Process.NoNewPrivileges = false
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow,
			Syscalls: []specs.LinuxSyscall{{Names: []string{"close_range", "faccessat2"}, Action: specs.ActErrno, ErrnoRet: &errno}}}
	}
	b.sees("/dev 0 1 2 3", "pwd; ls /proc/self/fd", func(s *specs.Spec) { // 3 is ls's own
		old(s)
		s.Process.Cwd = "/dev"
	})
	b.config(func(s *specs.Spec) { old(s); s.Process.Args = []string{"nosuch"} })
	b.expect(127, "", "run", "one")
	b.config(func(s *specs.Spec) { old(s); s.Process.Args = []string{"/proc/self/fd/3/bin/true"} })
	b.expect(127, "", "run", "one")
}
