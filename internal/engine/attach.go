package engine

import (
	"context"
	"os"
	"slices"
	"strconv"
	"syscall"

	"fief/internal/monitor"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// Attach connects a client with a container's streams. It returns once the
// connection is registered: for a created container it takes effect, complete,
// at its start.
func (e *Engine) Attach(ctx context.Context, name string, at Attach) error {
	c, err := e.table.find(name)
	if err != nil {
		return err
	}
	if err := c.attach(ctx, at); err != nil {
		return err
	}
	e.tell("attach", c.record(), nil)
	return nil
}

func (c *container) attach(ctx context.Context, at Attach) error {
	if c.record().State.Status != record.Running {
		return c.attachEarly(at)
	}
	mon, err := c.monitor("attach to")
	if err != nil {
		return err
	}
	return mon.Attach(ctx, "", monitorAttach(at))
}

func monitorAttach(at Attach) monitor.Attach {
	return monitor.Attach{Stdin: at.Stdin, Stdout: at.Stdout, Stderr: at.Stderr, Alive: at.Alive, DetachKeys: at.DetachKeys}
}

// attachEarly keeps an attachment for the start, with descriptors of its own.
func (c *container) attachEarly(at Attach) error {
	own, err := dupAttach(at)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropGone()
	c.pending = append(c.pending, own)
	return nil
}

// dropGone lets go of kept attachments whose clients have gone meanwhile: the
// end of such a client's input must not end the input of the next one.
// Preconditions: c.mu is held.
func (c *container) dropGone() {
	c.pending = slices.DeleteFunc(c.pending, func(at Attach) bool {
		own := monitorAttach(at)
		if !own.Gone() {
			return false
		}
		closeAttached([]monitor.Attach{own})
		return true
	})
}

// takePending hands the kept attachments over; the caller closes them.
func (c *container) takePending() []monitor.Attach {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropGone()
	var out []monitor.Attach
	for _, at := range c.pending {
		out = append(out, monitorAttach(at))
	}
	c.pending = nil
	return out
}

func (c *container) dropPending() { closeAttached(c.takePending()) }

func closeAttached(list []monitor.Attach) {
	for _, at := range list {
		for _, f := range []*os.File{at.Stdin, at.Stdout, at.Stderr, at.Alive} {
			if f != nil {
				f.Close()
			}
		}
	}
}

// dupAttach duplicates what the caller will close.
func dupAttach(at Attach) (own Attach, err error) {
	own.DetachKeys = at.DetachKeys
	for _, p := range []struct{ from, to **os.File }{
		{&at.Stdin, &own.Stdin}, {&at.Stdout, &own.Stdout}, {&at.Stderr, &own.Stderr}, {&at.Alive, &own.Alive},
	} {
		if *p.to, err = dup(*p.from); err != nil {
			closeAttached([]monitor.Attach{monitorAttach(own)})
			return Attach{}, err
		}
	}
	return own, nil
}

// dup duplicates a descriptor. It goes through SyscallConn, since File.Fd would
// make the open file blocking for everyone who shares it.
func dup(f *os.File) (own *os.File, err error) {
	if f == nil {
		return nil, nil
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "duplicate descriptor of", f.Name(), err, "")
	}
	var fd uintptr
	var errno syscall.Errno
	err = conn.Control(func(from uintptr) {
		fd, _, errno = syscall.Syscall(syscall.SYS_FCNTL, from, syscall.F_DUPFD_CLOEXEC, 3)
	})
	if errno != 0 {
		err = errno
	}
	if err != nil {
		return nil, fault.Wrap(fault.Exhausted, "duplicate descriptor of", f.Name(), err, "")
	}
	return os.NewFile(fd, f.Name()), nil
}

// Resize tells a container's terminal its size.
func (e *Engine) Resize(ctx context.Context, name string, rows, cols uint16) error {
	c, err := e.table.find(name)
	if err != nil {
		return err
	}
	mon, err := c.monitor("resize")
	if err != nil {
		return err
	}
	if err := mon.Resize(ctx, "", rows, cols); err != nil {
		return err
	}
	e.tell("resize", c.record(), map[string]string{"height": strconv.Itoa(int(rows)), "width": strconv.Itoa(int(cols))})
	return nil
}
