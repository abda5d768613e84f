package fast

import (
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/door/native/wire"
	"fief/internal/words/fault"
)

// drain is how long a client whose process has ended waits for the monitor to
// write the rest of the output. The monitor holds the descriptors and goes on
// writing after that; only the order with what the shell prints next is lost.
const drain = 10 * time.Second

// Call is a request whose process the client stays with.
type Call struct {
	Conn     *wire.Conn
	Exec     bool // the process is an exec session, not a container
	Detach   bool // print the id and leave
	TTY      bool // closing streams may mean that the user detached
	SigProxy bool
	Quiet    bool // do not print warnings
	// Redial reaches the daemon again after it was restarted.
	Redial func() (*wire.Conn, error)
	// Started is called with the daemon's message, when not nil.
	Started func(wire.StartedBody)
	// Size, when not nil, delivers the terminal's size whenever it changes.
	Size <-chan [2]uint16
	// First, when not nil, is the size to begin with, for processes whose
	// request has no room for it.
	First *[2]uint16

	shown bool // a line of progress is on the terminal

	mu    sync.Mutex // guards Conn, id and lost against forwarding goroutines
	id    string
	lost  bool // the connection the call was made on has gone
	alive int
}

// Follow sends the request with the client's stdio and a liveness socket, and
// stays until the process ends or the user detaches: it returns the exit
// status. It closes the connection. When the daemon goes meanwhile, output
// goes on, since the monitor holds the descriptors, and the client waits at
// the next daemon.
func (c *Call) Follow(verb wire.Verb, body []byte) (int, error) {
	ours, theirs, err := wire.Pair()
	if err != nil {
		return 0, fault.Wrap(fault.Internal, "make", "liveness socket", err, "")
	}
	defer unix.Close(ours)
	defer func() { c.Conn.Close() }()
	c.alive = ours
	err = c.Conn.Ask(verb, body, 0, 1, 2, theirs)
	unix.Close(theirs)
	if err != nil {
		return 0, err
	}
	if c.First != nil {
		c.tell(wire.Resize, wire.EncodeSize(c.First[0], c.First[1]))
	}
	if !c.Detach {
		defer c.forward()()
	}
	code, err := c.listen()
	if err == nil && !c.Detach {
		c.drained()
	}
	return code, err
}

// listen reads messages until the call ends.
func (c *Call) listen() (int, error) {
	for {
		if c.detached() {
			return 0, nil
		}
		m, err := c.Conn.Next()
		if m.Kind != wire.Progress {
			c.progress("")
		}
		if err != nil {
			return c.wait(err)
		}
		switch m.Kind {
		case wire.Progress:
			c.progressed(m.Body)
		case wire.Warning:
			if !c.Quiet {
				os.Stderr.WriteString("WARNING: " + string(m.Body) + "\n")
			}
		case wire.Started:
			if err := c.started(m.Body); err != nil {
				return 0, err
			}
		case wire.Failure:
			return 0, wire.DecodeFailure(m.Body)
		case wire.Result:
			return 0, nil
		case wire.Exit:
			e, err := wire.DecodeExit(m.Body)
			if e.Error != "" {
				os.Stderr.WriteString("fief: " + e.Error + "\n")
			}
			return e.Code, err
		}
	}
}

func (c *Call) started(body []byte) error {
	s, err := wire.DecodeStarted(body)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.id = s.ID
	c.mu.Unlock()
	if c.Started != nil {
		c.Started(s)
	}
	if c.Detach && !c.Exec {
		os.Stdout.WriteString(s.ID + "\n")
	}
	return nil
}

// detached waits until the daemon says something; with a terminal also until
// the monitor lets go of it, which is a detach if the process still runs.
func (c *Call) detached() bool {
	if !c.TTY || c.id == "" {
		return false
	}
	fds := []unix.PollFd{{Fd: int32(c.Conn.FD()), Events: unix.POLLIN}, {Fd: int32(c.alive), Events: unix.POLLIN}}
	poll(fds, -1)
	if fds[0].Revents != 0 {
		return false
	}
	// The streams of a process that ends close a moment before its exit is
	// told.
	c.TTY = false
	return !poll(fds[:1], 500*time.Millisecond)
}

// wait goes on at the next daemon when the connection broke after the start.
func (c *Call) wait(cause error) (int, error) {
	c.mu.Lock()
	c.lost = true
	id := c.id
	c.mu.Unlock()
	if id == "" || c.Redial == nil {
		return 0, wire.Gone(cause)
	}
	verb, body := wire.Wait, any(wire.WaitCall{ID: id})
	if c.Exec {
		verb, body = wire.WaitExec, wire.Name{Name: id}
	}
	for {
		conn, err := c.Redial()
		if err != nil {
			return 0, err
		}
		var e wire.ExitBody
		err = conn.Call(verb, body, &e, nil)
		conn.Close()
		if fault.Is(err, fault.NotFound) {
			// The next daemon does not know the process any more; its output
			// still comes, and is waited for.
			poll([]unix.PollFd{{Fd: int32(c.alive), Events: unix.POLLIN}}, -1)
			f := fault.New(fault.Unavailable, "learn the exit status of", id, "the daemon was restarted meanwhile", "")
			f.ExitCode = 255
			return 0, f
		}
		if !fault.Is(err, fault.Unavailable) {
			return e.Code, err
		}
		time.Sleep(100 * time.Millisecond) // this daemon went as well
	}
}

// drained waits until the monitor has let go of the client's streams.
func (c *Call) drained() {
	poll([]unix.PollFd{{Fd: int32(c.alive), Events: unix.POLLIN}}, drain)
}

// poll waits for any of fds; false after the time (negative: none) is over.
func poll(fds []unix.PollFd, limit time.Duration) bool {
	end := time.Now().Add(limit)
	for {
		ms := -1
		if limit >= 0 {
			ms = int(max(time.Until(end), 0) / time.Millisecond)
		}
		n, err := unix.Poll(fds, ms)
		if err != unix.EINTR {
			return n > 0
		}
	}
}

// settle is how long fief leaves the rarer signals to their default action.
// Each signal that os/signal takes over is a meeting of two threads in the
// runtime: all of them take 3 ms of both processors, just when the container
// starts. A process that has ended within the time never pays.
const settle = 30 * time.Millisecond

// forward sends the client's signals and terminal sizes to the process, until
// the function it returns is called. The signals stay caught: fief ends.
func (c *Call) forward() (stop func()) {
	done := make(chan struct{})
	go func() {
		signals := make(chan os.Signal, 32)
		var later <-chan time.Time
		if c.SigProxy {
			signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
			later = time.After(settle)
		}
		for {
			select {
			case <-done:
				return
			case <-later:
				signal.Notify(signals, rarer()...)
			case s := <-signals:
				if n, ok := s.(syscall.Signal); ok {
					c.signal(n)
				}
			case size := <-c.Size:
				c.tell(wire.Resize, wire.EncodeSize(size[0], size[1]))
			}
		}
	}()
	return func() { close(done) }
}

// rarer are the other signals that are the process's business: not those that
// cannot be caught, that mean a fault of fief, or that fief's own children,
// pipes, terminal and runtime cause.
func rarer() []os.Signal {
	var out []os.Signal
	for n := syscall.Signal(1); n <= 64; n++ {
		switch n {
		case unix.SIGCHLD, unix.SIGPIPE, unix.SIGURG, unix.SIGWINCH, unix.SIGKILL, unix.SIGSTOP,
			unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGPROF, 32, 33: // 32 and 33 are the C library's
		default:
			out = append(out, n)
		}
	}
	return out
}

func (c *Call) tell(kind wire.Kind, body []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.lost && c.Conn.Tell(kind, body) == nil
}

// signal forwards one signal. After a restart of the daemon it is a call of
// its own; an exec session can then no longer be signalled.
func (c *Call) signal(s syscall.Signal) {
	if c.tell(wire.Signal, []byte{byte(s)}) || c.Exec || c.Redial == nil {
		return
	}
	c.mu.Lock()
	id := c.id
	c.mu.Unlock()
	if id == "" {
		return
	}
	conn, err := c.Redial()
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.Call(wire.Kill, wire.KillCall{ID: id, Signal: strconv.Itoa(int(s))}, nil, nil)
}
