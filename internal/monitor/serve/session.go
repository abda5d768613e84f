package serve

import (
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/monitor/wire"
	"fief/internal/words/fault"
)

// flushGrace is how long the news of an exit waits for clients that do not
// take the last output. They still get it afterwards, as long as they live.
const flushGrace = 250 * time.Millisecond

// linger is how long the output of an exec session is read after its process
// has ended while children of it hold the pipes (moby waits as long,
// daemon/monitor.go). The container's own process needs none: the kernel has
// killed everything in its pid namespace before it can be waited for.
const linger = 2 * time.Second

// session is one process with its streams: the container's process 1 (target
// empty) or an exec session.
type session struct {
	v         *server
	target    string
	tty       bool
	openStdin bool
	stdinOnce bool

	pid     int
	began   time.Time
	pidfd   *os.File
	console *os.File // master of the terminal, nil without one
	peer    int      // its slave, kept open so that a program may close and open it; -1
	pumps   []*pump

	tap  *tap              // of a health check: what it says; else nil
	over chan *wire.Exited // of a health check: gets its end, which no daemon is told

	drained sync.WaitGroup // pumps that may still hold output from before the exit
	pumped  sync.WaitGroup // pumps that run
	exited  chan struct{}  // closed when the process has ended

	stdinLock sync.Mutex // one client's piece at a time; held while the program does not read
	stdin     *os.File   // nil without an open stdin; the console with a terminal

	mu      sync.Mutex // guards what is below
	reaped  bool       // pid and pidfd must not be used any more
	ended   bool       // no attachment can be added
	clients []*attachment
}

func newSession(v *server, target string, p *wire.Proc) *session {
	return &session{v: v, target: target, tty: p.TTY, openStdin: p.OpenStdin, stdinOnce: p.StdinOnce || target != "",
		peer: -1, exited: make(chan struct{})}
}

func (s *session) running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pid != 0 && !s.reaped
}

func (s *session) signal(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := error(unix.ESRCH)
	if !s.reaped {
		s.control(s.pidfd, func(fd int) { err = unix.PidfdSendSignal(fd, sig, nil, 0) })
	}
	if err == unix.ESRCH {
		return notRunning(s.target)
	}
	return fault.Wrap(classOfErrno(err), "send signal to", "process", err, "")
}

func classOfErrno(err error) fault.Class {
	switch err {
	case unix.EINVAL:
		return fault.Invalid
	case unix.EPERM:
		return fault.Denied
	}
	return fault.Internal
}

// control lends out the descriptor of f; (*os.File).Fd would make it block.
func (s *session) control(f *os.File, use func(fd int)) {
	if raw, err := f.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { use(int(fd)) })
	}
}

func (s *session) resize(rows, cols uint16) error {
	if s.console == nil {
		return fault.Say(fault.Conflict, "cannot resize: the process has no terminal")
	}
	err := error(unix.EBADF)
	s.control(s.console, func(fd int) {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
	if err == unix.EBADF || err == unix.EIO {
		return notRunning(s.target)
	}
	return fault.Wrap(fault.Internal, "resize", "terminal", err, "")
}

// follow waits for the end of the process and winds the session up.
func (s *session) follow() {
	status := s.reap()
	exit := &wire.Exited{Target: s.target, At: time.Now().UnixNano()}
	exit.Code, exit.Signal = int32(status.ExitStatus()), 0
	if status.Signaled() { // ExitStatus is -1 then
		exit.Code, exit.Signal = 128+int32(status.Signal()), uint32(status.Signal())
	}
	close(s.exited)
	if !s.tty {
		s.closeStdin()
	}
	if s.peer >= 0 {
		unix.Close(s.peer)
	}
	for _, p := range s.pumps {
		p.from.SetReadDeadline(past)
	}
	s.drained.Wait()
	if s.target == "" && s.v.log != nil {
		// Before the news: another monitor may be given the same log after it.
		s.v.log.Close()
	}
	s.flush()
	s.v.ended(s, exit)
	s.pumped.Wait()
	s.windUp()
	if s.console != nil {
		s.console.Close()
	}
	s.v.end()
}

// reap waits for the process. The pidfd becomes readable when it has ended,
// pidfd_open(2); the pid cannot be anybody else's until it has been waited for.
func (s *session) reap() syscall.WaitStatus {
	var ws syscall.WaitStatus
	try := func(options int) bool {
		for {
			pid, err := syscall.Wait4(s.pid, &ws, options|unix.WALL, nil)
			if err != unix.EINTR {
				return pid == s.pid || err != nil
			}
		}
	}
	raw, err := s.pidfd.SyscallConn()
	if err == nil {
		err = raw.Read(func(uintptr) bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.reaped = try(unix.WNOHANG)
			return s.reaped
		})
	}
	if err != nil && !s.reaped { // no poller for this descriptor: wait on a thread
		try(0)
	}
	s.mu.Lock()
	s.reaped = true
	s.mu.Unlock()
	s.pidfd.Close()
	return ws
}

// flush waits for clients to take what there is, not for ever.
func (s *session) flush() {
	s.mu.Lock()
	clients := append([]*attachment(nil), s.clients...)
	s.mu.Unlock()
	var timer <-chan time.Time
	for _, a := range clients {
		for _, ch := range a.waiting() {
			if timer == nil {
				timer = time.After(flushGrace)
			}
			select {
			case <-ch:
			case <-timer:
				return
			}
		}
	}
}

// windUp lets every client have the rest and parts from it.
func (s *session) windUp() {
	s.mu.Lock()
	s.ended = true
	clients := s.clients
	s.mu.Unlock()
	for _, a := range clients {
		a.conclude()
	}
}

// input gives a client's bytes to the process.
func (s *session) input(p []byte) error {
	s.stdinLock.Lock()
	defer s.stdinLock.Unlock()
	_, err := s.stdin.Write(p)
	return err
}

// closeStdin ends the process's stdin; who waits in input gets an error.
func (s *session) closeStdin() {
	if s.stdin != nil {
		s.stdin.Close()
	}
}

// sinks calls use for each client's sink of one output stream.
func (s *session) sinks(stream int, use func(*sink)) {
	s.mu.Lock()
	var all [8]*sink
	list := all[:0]
	for _, a := range s.clients {
		if k := a.out[stream]; k != nil {
			list = append(list, k)
		}
	}
	s.mu.Unlock()
	for _, k := range list {
		use(k)
	}
}
