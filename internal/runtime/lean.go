package runtime

import (
	"sync"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// Lean starts processes that inherit nothing of this process's writable memory
// but the memory of their own plan: what a monitor knows is never in a process
// inside a container, and neither side has to copy pages that the other one
// writes to. Memory is left out by MADV_DONTFORK (madvise(2)), which stays with
// it: from then on a fork by other means than Start, or one that shares all
// memory until execve (as package os/exec does), ends in a crash of the child.
type Lean struct {
	mu     sync.Mutex // one clone3 at a time: no other plan may be inherited
	marked memorySize // when all memory was marked last
}

// NewLean marks all memory there is now. An error means that /proc is missing;
// what is returned works all the same, but children inherit memory.
func NewLean() (*Lean, error) {
	n := &Lean{}
	return n, fault.Wrap(fault.Unsupported, "mark", "memory", n.mark(), "mount /proc")
}

// Start is the function Start. meanwhile, unless nil, is called when the child
// has been told to go, and works beside it; its error ends the process and is
// returned.
func (n *Lean) Start(encoded []byte, files []int, meanwhile func() error) (Process, error) {
	return start(encoded, files, hooks{meanwhile: meanwhile}, n)
}

// StartAt is Start with callbacks.
func (n *Lean) StartAt(encoded []byte, files []int, c Callbacks, meanwhile func() error) (Process, error) {
	return start(encoded, files, hooks{Callbacks: c, meanwhile: meanwhile}, n)
}

// only makes mem the only writable memory that a child made before the call of
// what it returns will have. Memory that the Go runtime maps in the very moment
// between is inherited: the child can do without it and does not use it.
func (n *Lean) only(mem []byte) (done func()) {
	n.mu.Lock()
	if size, err := readMemorySize(); err != nil || size != n.marked {
		n.mark() // what cannot be marked is inherited
	}
	unix.Madvise(mem, unix.MADV_DOFORK)
	return func() {
		unix.Madvise(mem, unix.MADV_DONTFORK)
		n.mu.Unlock()
	}
}

// mark marks every private writable mapping and every shared one: plans of
// starts under way, whose turn comes in only.
func (n *Lean) mark() error {
	var buf [16 << 10]byte
	fd, err := unix.Open("/proc/self/maps", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	have := 0
	for {
		got, err := unix.Read(fd, buf[have:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || got == 0 {
			break
		}
		have = markLines(buf[:], have+got)
	}
	if n.marked, err = readMemorySize(); err != nil {
		return err
	}
	return nil
}

// markLines marks the mappings of all whole lines in buf[:n], moves the rest to
// the front, and returns its length.
func markLines(buf []byte, n int) int {
	start := 0
	for i := range n {
		if buf[i] != '\n' {
			continue
		}
		if from, to, ok := writable(buf[start:i]); ok {
			unix.RawSyscallNoError(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTFORK)
		}
		start = i + 1
	}
	return copy(buf, buf[start:n])
}

// writable reads a line of /proc/self/maps: "from-to perms …" (proc_pid_maps(5)).
func writable(line []byte) (from, to uintptr, ok bool) {
	from, line = hexadecimal(line)
	if len(line) == 0 || line[0] != '-' {
		return 0, 0, false
	}
	to, line = hexadecimal(line[1:])
	return from, to, len(line) >= 5 && line[2] == 'w' && from < to
}

func hexadecimal(s []byte) (n uintptr, rest []byte) {
	for i, c := range s {
		switch {
		case c >= '0' && c <= '9':
			n = n<<4 | uintptr(c-'0')
		case c >= 'a' && c <= 'f':
			n = n<<4 | uintptr(c-'a'+10)
		default:
			return n, s[i:]
		}
	}
	return n, nil
}

// memorySize tells whether memory was mapped: the sixth number of
// /proc/self/statm, the pages of private writable mappings (proc_pid_statm(5)).
type memorySize struct {
	text [24]byte
}

func readMemorySize() (size memorySize, err error) {
	fd, err := unix.Open("/proc/self/statm", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return size, err
	}
	defer unix.Close(fd)
	var buf [128]byte
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return size, err
	}
	field, at := 0, 0
	for _, c := range buf[:max(n, 0)] {
		if c == ' ' {
			field++
		} else if field == 5 && at < len(size.text) {
			size.text[at] = c
			at++
		}
	}
	return size, nil
}
