package serve

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/monitor/lines"
)

// The output streams.
const (
	stdout = 0
	stderr = 1
)

// ttyPending is more than the kernel keeps between the sides of a terminal.
const ttyPending = 256 << 10

// pump moves one output stream of a process to the log and to the clients.
type pump struct {
	s      *session
	stream int
	name   string        // the stream's in the log
	from   *os.File      // read end of the pipe, or the console
	log    *lines.Stream // nil: not logged
}

// run reads until the stream has ended. It always gets everything written
// before the process ended.
func (p *pump) run() {
	defer p.s.pumped.Done()
	size := 32 << 10
	if p.s.tap != nil { // one for every check would be all the memory a monitor uses
		size = keptOutput
	}
	buf := make([]byte, size)
	open := true
	for open && !p.exited() {
		err := p.step(buf)
		open = err == nil || os.IsTimeout(err) // the exit sets a deadline to wake us
		p.hold()
	}
	if open {
		open = p.drain(buf)
	}
	if p.log != nil {
		p.log.Close(time.Now())
	}
	p.s.drained.Done()
	if open && p.s.target != "" {
		p.from.SetReadDeadline(time.Now().Add(linger))
		for p.step(buf) == nil {
		}
	}
	if p.from != p.s.console {
		p.from.Close()
	}
}

// step waits for output and passes it on. A terminal nobody holds any more
// reads as EIO.
func (p *pump) step(buf []byte) error {
	n, err := p.from.Read(buf)
	if n > 0 {
		p.pass(buf[:n])
	}
	return err
}

func (p *pump) exited() bool {
	select {
	case <-p.s.exited:
		return true
	default:
		return false
	}
}

// pass gives output to the log first, then to the clients.
func (p *pump) pass(data []byte) {
	if p.log != nil {
		p.log.Write(data, time.Now())
	}
	if p.s.tap != nil {
		p.s.tap.write(data)
	}
	p.s.sinks(p.stream, func(k *sink) { k.write(data) })
}

// hold waits until every client has room, or the process has ended: then what
// is left is at most what its pipe holds and must not stay there.
func (p *pump) hold() {
	p.s.sinks(p.stream, func(k *sink) {
		if room := k.full(); room != nil {
			select {
			case <-room:
			case <-p.s.exited:
			}
		}
	})
}

// drain reads what the process left in the pipe when it ended, which is at
// most the pipe's capacity, and reports whether somebody else holds the other
// end. Reading on would follow processes that do not belong to it.
func (p *pump) drain(buf []byte) (open bool) {
	open = true
	p.s.control(p.from, func(fd int) {
		left := ttyPending
		if !p.s.tty {
			if size, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0); err == nil {
				left = size
			}
		}
		for left > 0 && open {
			n, err := unix.Read(fd, buf[:min(left, len(buf))])
			switch {
			case n > 0:
				p.pass(buf[:n])
				left -= n
			case err == unix.EINTR:
			case err == unix.EAGAIN:
				if !p.s.tty || !readable(fd) {
					return
				}
			default:
				open = false
			}
		}
	})
	return open
}

// readable asks poll(2) for data. On a terminal it also brings in what the
// kernel has taken from the program and not yet carried over to our side
// (n_tty_poll calls tty_buffer_flush_work): without it a read can find
// nothing although the last output is on its way.
func readable(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return n == 1 && err == nil && p[0].Revents&unix.POLLIN != 0
}
