package space

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/fd"
	"fief/internal/kernel/mnt"
	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
)

const opProc = "make proc of"

// procBegunIn begins to configure a proc in a process of the pid namespace. All
// the rest is done here: the context remembers the namespace (proc_init_fs_context).
func procBegunIn(pidns *os.File) (*mnt.FS, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, sysx.Fault(opProc, pidns.Name(), err)
	}
	defer unix.Close(pair[0])
	m := newMessage(pair[1])
	pid := 0
	err = visit(pidns, unix.CLONE_NEWPID, func() error {
		var errno syscall.Errno
		if pid, errno = m.fork(); errno != 0 {
			return sysx.Fault(opProc, pidns.Name(), errno)
		}
		return nil
	})
	unix.Close(pair[1])
	if err != nil {
		return nil, err
	}
	ctx, err := receive(pair[0])
	status := reap(pid)
	if err == nil {
		return mnt.Opened(fd.Wrap(ctx, "proc"), "proc"), nil
	}
	if status.Exited() && status.ExitStatus() != 0 {
		return nil, sysx.Fault(opProc, pidns.Name(), syscall.Errno(status.ExitStatus()))
	}
	return nil, fault.Wrap(fault.Unavailable, opProc, pidns.Name(), err, "its processes may have ended")
}

// receive takes the descriptor that the child sends; an error when it ended
// without.
func receive(socket int) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	for {
		n, oobn, _, _, err := unix.Recvmsg(socket, make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return -1, errors.Join(err, errNothing)
		}
		list, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(list) != 1 {
			return -1, errNothing
		}
		fds, err := unix.ParseUnixRights(&list[0])
		if err != nil || len(fds) != 1 {
			return -1, errNothing
		}
		return fds[0], nil
	}
}

var errNothing = errors.New("the process sent there sent nothing back")

func reap(pid int) (status unix.WaitStatus) {
	for {
		if _, err := unix.Wait4(pid, &status, unix.WALL, nil); !errors.Is(err, unix.EINTR) {
			return status
		}
	}
}

// message is what the child sends: one byte with one descriptor. It is made
// before the fork, after which nothing can be allocated.
type message struct {
	socket uintptr
	kind   [8]byte
	header unix.Msghdr
	body   unix.Iovec
	data   [1]byte
	rights struct {
		unix.Cmsghdr
		fd  int32
		pad int32
	}
	args sysx.CloneArgs
}

func newMessage(socket int) *message {
	m := &message{socket: uintptr(socket)}
	copy(m.kind[:], "proc")
	m.body = unix.Iovec{Base: &m.data[0], Len: 1}
	m.rights.Len, m.rights.Level, m.rights.Type = uint64(unix.CmsgLen(4)), unix.SOL_SOCKET, unix.SCM_RIGHTS
	m.header = unix.Msghdr{Iov: &m.body, Iovlen: 1, Control: (*byte)(unsafe.Pointer(&m.rights)), Controllen: uint64(unix.CmsgSpace(4))}
	m.args = sysx.CloneArgs{Flags: unix.CLONE_CLEAR_SIGHAND}
	return m
}

// fork forks the child. What makes that safe in a Go process is said at
// userns.cloneInto. The table of descriptors
// is a copy: a child killed before it has sent the descriptor leaves none.
//
//go:nosplit
//go:norace
//go:noinline
func (m *message) fork() (pid int, errno syscall.Errno) {
	var all, old uint64 = 1<<64 - 1, 0
	_, _, errno = syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK,
		uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), unsafe.Sizeof(all), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	r, _, errno := syscall.RawSyscall6(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&m.args)), sysx.SizeofCloneArgs, 0, 0, 0, 0)
	if errno == 0 && r == 0 {
		m.open()
	}
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK,
		uintptr(unsafe.Pointer(&old)), 0, unsafe.Sizeof(old), 0, 0)
	return int(r), errno
}

// open is the whole life of the child, a process of the host that the
// namespace's own can see: it makes itself untraceable for them first.
//
//go:nosplit
//go:norace
//go:noinline
func (m *message) open() {
	_, _, errno := syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0, 0)
	if errno == 0 {
		var r uintptr
		r, _, errno = syscall.RawSyscall6(unix.SYS_FSOPEN, uintptr(unsafe.Pointer(&m.kind)), unix.FSOPEN_CLOEXEC, 0, 0, 0, 0)
		m.rights.fd = int32(r)
	}
	if errno == 0 {
		_, _, errno = syscall.RawSyscall6(unix.SYS_SENDMSG, m.socket, uintptr(unsafe.Pointer(&m.header)), unix.MSG_NOSIGNAL, 0, 0, 0)
	}
	for {
		syscall.RawSyscall6(unix.SYS_EXIT_GROUP, uintptr(errno), 0, 0, 0, 0, 0)
	}
}
