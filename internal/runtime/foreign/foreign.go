// Package foreign has other OCI runtimes start processes: it carries out errands
// by calling their command line in a mount namespace made for the call, and
// takes over the processes they leave behind.
//
// A process that makes errands of Create and Exec becomes a subreaper
// (PR_SET_CHILD_SUBREAPER, prctl(2)): runtimes detach from what they start, and
// only a parent learns an exit code.
package foreign

import (
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/words/errand"
	"fief/internal/words/fault"
)

// Process is a process that was started. PIDFD and Console (the master of its
// terminal, -1 without one) are the caller's, who reaps it (wait4(2) by pid).
type Process struct {
	PID, PIDFD, Console int
}

// Caller makes calls. Its methods may be called by several goroutines.
type Caller struct {
	// Binary is a program that calls Carry when its only argument is Argument.
	Binary string

	once   sync.Once
	strays sync.RWMutex // read: a call is under way, and its process nobody's yet; before mu
	mu     sync.Mutex
	count  int          // of calls, for names of files; guarded by mu
	taken  map[int]bool // processes that Start has returned; guarded by mu and strays
}

// defaultLimit bounds a call that has no limit of its own.
const defaultLimit = time.Minute

// Start carries out an encoded errand, Create or Exec, with the descriptors it
// names, which stay the caller's. made, which is told the process, and then
// meanwhile are called once at most, unless nil, before the program runs; an error
// ends what was begun and is returned.
//
// Failures are in the runtime's own words. What a failed Create left is not
// cleaned up: that is a Delete, also for one whose caller was killed.
func (c *Caller) Start(encoded []byte, files []int, made func(pid int) error, meanwhile func() error) (Process, error) {
	e, err := errand.Decode(encoded, len(files))
	if err != nil {
		return Process{}, err
	}
	c.once.Do(func() {
		unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) // cannot fail since Linux 3.4
		go c.reapStrays()
	})
	c.strays.RLock()
	defer c.strays.RUnlock()
	n, err := c.newCall(e)
	if err != nil {
		return Process{}, err
	}
	defer n.end()
	if err := n.run(files, c.Binary); err != nil {
		return Process{}, err
	}
	p, err := n.take()
	if err != nil {
		return Process{}, err
	}
	if made != nil {
		err = made(p.PID)
	}
	if err == nil && meanwhile != nil {
		err = meanwhile()
	}
	if err == nil && e.Verb == errand.Create {
		err = c.begin(e)
	}
	if err != nil {
		p.abort()
		return Process{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken == nil {
		c.taken = map[int]bool{}
	}
	c.taken[p.PID] = true
	return p, nil
}

// begin lets a created container's program run. runsc reads the configuration
// again for it.
func (c *Caller) begin(e *errand.Errand) error {
	return c.Call(&errand.Errand{Verb: errand.Start, Runtime: e.Runtime, Args: e.Args, ID: e.ID, Root: e.Root, Dir: e.Dir, Place: e.Place,
		View: e.View, JSON: e.JSON, Stdio: [3]int32{-1, -1, -1}, Limit: e.Limit})
}

// Call carries out an errand that starts nothing and needs no descriptors: Start
// or Delete.
func (c *Caller) Call(e *errand.Errand) error {
	n, err := c.newCall(e)
	if err != nil {
		return err
	}
	defer n.end()
	return n.run(nil, c.Binary)
}

// abort ends a process that must not run.
func (p Process) abort() {
	unix.PidfdSendSignal(p.PIDFD, unix.SIGKILL, nil, 0)
	for {
		if _, err := unix.Wait4(p.PID, nil, unix.WALL, nil); err != unix.EINTR {
			break
		}
	}
	unix.Close(p.PIDFD)
	if p.Console >= 0 {
		unix.Close(p.Console)
	}
}

// reapStrays waits for what runtimes, and containers without a pid namespace of
// their own, leave behind: as a subreaper this process gets it, and a container's
// pid namespace does not end before its last process has been waited for
// (pid_namespaces(7)). Every call has a session of its own, so what is in this
// process's session is somebody's who waits for it.
func (c *Caller) reapStrays() {
	own, _ := unix.Getsid(0)
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOWAIT|unix.WALL, nil)
		switch {
		case err == unix.EINTR:
		case err != nil: // no child at all
			time.Sleep(time.Second)
		case !c.reapStray(deadPID(&info), own):
			time.Sleep(20 * time.Millisecond) // till its own waiter has come
		}
	}
}

// reapStray reaps a dead child unless it is somebody's.
func (c *Caller) reapStray(pid, own int) bool {
	if session, err := unix.Getsid(pid); err != nil || session == own {
		return false
	}
	c.strays.Lock()
	defer c.strays.Unlock()
	for taken := range c.taken {
		if err := unix.Waitid(unix.P_PID, taken, nil, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG|unix.WALL, nil); err == unix.ECHILD {
			delete(c.taken, taken)
		}
	}
	if c.taken[pid] {
		return false
	}
	unix.Wait4(pid, nil, unix.WALL|unix.WNOHANG, nil)
	return true
}

// newCall prepares the files of a call.
func (c *Caller) newCall(e *errand.Errand) (*call, error) {
	if e.Limit <= 0 {
		e.Limit = defaultLimit
	}
	c.mu.Lock()
	c.count++
	name := e.Verb.String() + "-" + strconv.Itoa(os.Getpid()) + "-" + strconv.Itoa(c.count)
	c.mu.Unlock()
	dir, err := unix.Open(e.Dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "open", e.Dir, err, "")
	}
	n := &call{errand: e, name: name, dir: dir, socket: -1}
	if e.TTY {
		if n.socket, err = listen(dir, name+socketEnd); err != nil {
			n.end()
			return nil, fault.Wrap(fault.Internal, "listen in", e.Dir, err, "")
		}
	}
	return n, nil
}
