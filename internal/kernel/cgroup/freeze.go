package cgroup

import (
	"bytes"
	"context"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// freezing is how long Freeze waits: a process in the kernel stops when it
// leaves it.
const freezing = 5 * time.Second

// Freeze stops every process of the group and those below it (cgroup.freeze,
// v5.2) and returns when all have stopped. SIGKILL still ends them. Those that do
// not stop within five seconds are a Busy fault, and ctx may end earlier; then,
// as after any failure, the group runs.
func (t *Tree) Freeze(ctx context.Context, name string) error {
	if err := t.usable(name); err != nil {
		return err
	}
	events, err := t.file(t.dir(name)+"/cgroup.events", unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer events.Close()
	if err := t.freeze(name, "1"); err != nil {
		return err
	}
	err = t.frozen(ctx, int(events.Fd()), t.dir(name))
	if err != nil {
		t.freeze(name, "0")
	}
	return err
}

// Thaw lets the processes of the group go on. One that runs is left alone.
func (t *Tree) Thaw(name string) error {
	if err := t.usable(name); err != nil {
		return err
	}
	return t.freeze(name, "0")
}

// Frozen reports whether every process of the group stands still.
func (t *Tree) Frozen(name string) (bool, error) {
	if err := t.usable(name); err != nil {
		return false, err
	}
	table, err := readTable(t.fd(), t.dir(name)+"/cgroup.events")
	return table["frozen"] == 1, t.failed("read the events of cgroup", t.dir(name), err)
}

func (t *Tree) freeze(name, state string) error {
	f, err := t.file(t.dir(name)+"/cgroup.freeze", unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = unix.Write(int(f.Fd()), []byte(state))
	return t.failed("freeze the processes of cgroup", t.dir(name), err)
}

// frozen waits until cgroup.events says so. It looks again every 20 ms, as ctx
// cannot be polled for.
func (t *Tree) frozen(ctx context.Context, events int, dir string) error {
	for until := time.Now().Add(freezing); ; {
		var text [256]byte
		n, err := unix.Pread(events, text[:], 0)
		if err != nil {
			return t.failed("read the events of cgroup", dir, err)
		}
		if bytes.Contains(text[:n], []byte("frozen 1")) {
			return nil
		}
		if ctx.Err() != nil {
			return fault.Wrap(fault.Canceled, "freeze cgroup", dir, ctx.Err(), "")
		}
		if time.Now().After(until) {
			return fault.New(fault.Busy, "freeze cgroup", dir, "a process does not stop", "try again, or without pausing: --pause=false")
		}
		poll := []unix.PollFd{{Fd: int32(events), Events: unix.POLLPRI}}
		if _, err := unix.Poll(poll, 20); err != nil && err != unix.EINTR {
			return t.failed("wait for cgroup", dir, err)
		}
	}
}
