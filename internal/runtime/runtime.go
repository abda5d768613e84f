// Package runtime starts a process from an encoded launch plan: it does the
// parent's steps, lets package child do the rest, and says which step failed.
package runtime

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/sysx"
	"fief/internal/launch/child"
	"fief/internal/words/fault"
	"fief/internal/words/plan"
)

// Process is a started process. The caller owns PIDFD and Console and reaps the
// process (waitid(2) with P_PIDFD). Console is -1 without a terminal.
type Process struct {
	PID     int
	PIDFD   int
	Console int     // master of the pseudoterminal, non-blocking
	Stamps  []int64 // CLOCK_MONOTONIC nanoseconds, one for each stamp of the plan
}

// Start carries out an encoded plan and returns when the program has been
// executed, or, with a gate, when the child waits at it. files are the
// descriptors that the plan names, in the order of plan.Files; they stay the
// caller's. It may be called by several goroutines at once. Resource limits not
// in the plan are the caller's, except the soft limit of open files, which Go
// raises and which is put back to 1024.
//
// A failed step is a *plan.Failure: the process is then gone and reaped, and
// nothing is left open. Any other error means that nothing was started.
func Start(encoded []byte, files []int) (Process, error) { return start(encoded, files, hooks{}, nil) }

// Callbacks are what the caller does in the course of a start; each may be nil.
// An error of one ends the process and is returned.
type Callbacks struct {
	// Prepare is called when the process's namespaces and maps exist and nothing
	// else has happened in it.
	Prepare func(pid int) error
	// Listener is called with the descriptor by which system calls of the process
	// are decided (seccomp_unotify(2)), while it goes on. It is closed afterwards.
	Listener func(pid, fd int) error
}

// StartWith is Start with callbacks.
func StartWith(encoded []byte, files []int, c Callbacks) (Process, error) {
	return start(encoded, files, hooks{Callbacks: c}, nil)
}

// hooks are all callbacks there are.
type hooks struct {
	Callbacks
	meanwhile func() error // when the child has been told to go
}

func start(encoded []byte, files []int, h hooks, lean *Lean) (Process, error) {
	if !child.Available {
		return Process{}, fault.New(fault.Unsupported, "start process", "", "built with the race detector", "")
	}
	l, err := load(encoded, files, lean)
	if err != nil {
		return Process{}, err
	}
	defer l.unload()
	if f := l.fork(); f != nil {
		return Process{}, f
	}
	if l.plan.Bools&plan.Twice != 0 {
		if err := l.second(); err != nil {
			return Process{}, err
		}
	}
	err = l.ready(h)
	if err == nil {
		err = l.follow(h.Listener)
	}
	if err != nil {
		l.abort()
		return Process{}, err
	}
	return Process{PID: l.pid, PIDFD: l.pidfd, Console: l.console, Stamps: l.stamps()}, nil
}

// launch is one start under way.
type launch struct {
	plan    *plan.Decoded
	lean    *Lean  // nil: the child gets a copy of this process's memory
	mem     []byte // stack, thread-local storage, frame, slots, kept descriptors, plan: shared with the child
	planAt  int
	frame   *child.Frame
	files   []int
	dups    []int // own copies of given descriptors below 3
	report  int   // our end of the report socket
	theirs  int   // the child's
	pid     int
	pidfd   int
	console int
}

const word = 8

// Where in the shared memory the child's stack ends, and with it its
// thread-local storage begins, and where that ends and the frame begins. What
// lies before the stack is not mapped.
const (
	tlsAt   = child.StackSize
	frameAt = tlsAt + child.TLSSize
)

func round(n int) int { return (n + word - 1) &^ (word - 1) }

// load maps memory for the child and puts everything in it.
func load(encoded []byte, files []int, lean *Lean) (*launch, error) {
	head, err := plan.Decode(encoded)
	if err != nil {
		return nil, err
	}
	if int(head.Files) != len(files) {
		return nil, fault.New(fault.Internal, "start process", "", "plan and descriptors do not fit together", "")
	}
	l := &launch{files: files, lean: lean, pidfd: -1, console: -1, report: -1, theirs: -1}
	slotsAt := frameAt + round(int(unsafe.Sizeof(child.Frame{})))
	keepAt := slotsAt + round(4*(int(head.Slots)+1))
	l.planAt = keepAt + round(4*(len(files)+1))
	helperAt := 0
	if head.Bools&plan.Spawns != 0 {
		helperAt = l.planAt
		l.planAt += frameAt + round(int(unsafe.Sizeof(child.Frame{})))
	}
	// Populated: one call that makes all pages is much cheaper than a page fault
	// for each.
	l.mem, err = unix.Mmap(-1, 0, l.planAt+len(encoded), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_SHARED|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return nil, fault.Wrap(fault.Exhausted, "map launch plan", "", err, "")
	}
	if lean != nil {
		unix.Madvise(l.mem, unix.MADV_DONTFORK) // till it is this one's turn
	}
	copy(l.mem[l.planAt:], encoded)
	if l.plan, err = plan.Decode(l.mem[l.planAt:]); err != nil {
		l.unload()
		return nil, err
	}
	if err := l.connect(); err != nil {
		l.unload()
		return nil, err
	}
	l.fill(slotsAt, keepAt)
	if helperAt != 0 {
		at := uintptr(unsafe.Pointer(&l.mem[helperAt]))
		stack := (at + tlsAt) &^ 15 // an end of a stack is aligned to 16
		l.frame.Helper, l.frame.SpawnStack, l.frame.SpawnTLS = at+frameAt, stack, at+tlsAt+child.TLSSize/2
	}
	return l, nil
}

// connect makes the report socket and moves descriptors out of 0…2, which the
// child overwrites.
func (l *launch) connect() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fault.Wrap(fault.Exhausted, "make report socket", "", err, "")
	}
	l.report, l.theirs = pair[0], pair[1]
	if l.theirs < 3 {
		if l.theirs, err = l.above(l.theirs); err != nil {
			return err
		}
		unix.Close(pair[1])
		l.dups = l.dups[:0]
	}
	moved := make([]int, len(l.files))
	for i, fd := range l.files {
		if fd >= 0 && fd < 3 {
			if fd, err = l.above(fd); err != nil {
				return err
			}
		}
		moved[i] = fd
	}
	l.files = moved
	return nil
}

func (l *launch) above(fd int) (int, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1, fault.Wrap(fault.Exhausted, "duplicate descriptor", "", err, "")
	}
	l.dups = append(l.dups, n)
	return n, nil
}

// fill writes frame, slots and kept descriptors, and relocates the plan.
func (l *launch) fill(slotsAt, keepAt int) {
	base := uintptr(unsafe.Pointer(&l.mem[0]))
	f := (*child.Frame)(unsafe.Pointer(&l.mem[frameAt]))
	l.frame = f
	f.Base = base + uintptr(l.planAt)
	f.Ops, f.NOps = base+uintptr(l.planAt)+uintptr(l.plan.OpsAt), l.plan.Ops
	f.Slots, f.Keep, f.NKeep = base+uintptr(slotsAt), base+uintptr(keepAt), uint32(len(l.files)+1)
	f.Report, f.OpenFiles = int32(l.theirs), l.openFiles()
	slots := unsafe.Slice((*int32)(unsafe.Pointer(&l.mem[slotsAt])), int(l.plan.Slots)+1)
	for i := range slots {
		slots[i] = -1
	}
	if l.plan.Bools&plan.Twice != 0 {
		*(*sysx.CloneArgs)(unsafe.Pointer(&f.Second)) = sysx.CloneArgs{
			Flags:     unix.CLONE_PARENT | unix.CLONE_PARENT_SETTID,
			ParentTID: uint64(uintptr(unsafe.Pointer(&f.PID))),
		}
	}
	keep := unsafe.Slice((*int32)(unsafe.Pointer(&l.mem[keepAt])), len(l.files)+1)
	for i, fd := range l.files {
		slots[i+1], keep[i] = int32(fd), int32(fd)
	}
	keep[len(l.files)] = int32(l.theirs)
	slots[l.plan.Report] = int32(l.theirs)
	sortFDs(keep)
	for i, s := range l.plan.Stdio {
		f.Stdio[i] = slots[s]
		if s == 0 {
			f.Stdio[i] = -1
		}
	}
	for _, r := range l.plan.RelocList {
		*(*uint64)(unsafe.Pointer(&l.mem[l.planAt+int(r)])) += uint64(base) + uint64(l.planAt)
	}
}

// sortFDs sorts in place: the lists are short, and package slices is not worth
// its weight in the monitor.
func sortFDs(list []int32) {
	for i := 1; i < len(list); i++ {
		for j := i; j > 0 && list[j] < list[j-1]; j-- {
			list[j], list[j-1] = list[j-1], list[j]
		}
	}
}

// unload gives back everything but the process itself.
func (l *launch) unload() {
	for _, fd := range append(l.dups, l.report, l.theirs) {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	unix.Munmap(l.mem)
}

// abort kills and reaps a child whose start failed.
func (l *launch) abort() {
	unix.PidfdSendSignal(l.pidfd, unix.SIGKILL, nil, 0)
	reap(l.pid)
	unix.Close(l.pidfd)
	if l.console >= 0 {
		unix.Close(l.console)
	}
}

func reap(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != syscall.EINTR {
			return
		}
	}
}

// stamps reads the times the child noted.
func (l *launch) stamps() []int64 {
	if l.plan.Stamps == 0 {
		return nil
	}
	at := l.planAt + int(l.plan.StampsAt)
	times := unsafe.Slice((*unix.Timespec)(unsafe.Pointer(&l.mem[at])), int(l.plan.Stamps))
	out := make([]int64, len(times))
	for i, t := range times {
		out[i] = t.Nano()
	}
	return out
}
