package serve

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"fief/internal/monitor/wire"
	"fief/internal/words/fault"
)

// attachment is one client's connection with a process.
type attachment struct {
	s     *session
	in    *endpoint // nil: no input from this client
	out   [2]*sink  // nil: does not want that stream
	alive *os.File  // nil: ends with its streams
	keys  detachKeys

	once sync.Once
	gone chan struct{} // closed when the client has been parted from
}

// register makes a client part of a session; it gets all output from now on.
// The descriptors are taken over, also on failure.
func (s *session) register(c wire.Attachment, files []int) (*attachment, error) {
	a, err := newAttachment(s, c, files)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	refused := s.ended
	if !refused {
		s.clients = append(s.clients, a)
	}
	s.mu.Unlock()
	if refused {
		a.part(wire.PartEnded)
		return nil, notRunning(s.target)
	}
	return a, nil
}

func newAttachment(s *session, c wire.Attachment, files []int) (*attachment, error) {
	a := &attachment{s: s, gone: make(chan struct{}), keys: detachKeys{keys: c.Keys}}
	if len(c.Keys) == 0 && s.tty {
		a.keys.keys = []byte(wire.DefaultDetachKeys)
	}
	for bit := wire.HasStdin; bit <= wire.HasAlive; bit <<= 1 {
		if c.Has&bit == 0 {
			continue
		}
		fd := files[0]
		files = files[1:]
		if err := a.take(bit, fd); err != nil {
			wire.CloseAll(files)
			a.part(wire.PartBroken)
			return nil, fault.Wrap(fault.Invalid, "attach", "client", err, "")
		}
	}
	return a, nil
}

// take makes use of one of the client's descriptors.
func (a *attachment) take(bit uint8, fd int) error {
	switch bit {
	case wire.HasAlive: // made for this purpose, so its flags are ours
		if err := unix.SetNonblock(fd, true); err != nil {
			unix.Close(fd)
			return err
		}
		a.alive = os.NewFile(uintptr(fd), "alive")
		return nil
	case wire.HasStdin:
		if !a.s.openStdin { // Docker, too, leaves a client's input alone then
			unix.Close(fd)
			return nil
		}
		in, err := newEndpoint(fd, false)
		a.in = in
		return err
	}
	stream := stdout
	if bit == wire.HasStderr {
		stream = stderr
	}
	to, err := newEndpoint(fd, true)
	if err == unix.EPIPE { // its reader has gone already: that is no error of the attach
		return nil
	}
	if err != nil {
		return err
	}
	k := &sink{to: to}
	k.broken = func() { a.lost(k) }
	a.out[stream] = k
	return nil
}

// listen starts to read from the client. Before it only output flows.
func (a *attachment) listen() {
	if a.alive != nil {
		go a.watch()
	}
	if a.in != nil {
		go a.read()
	}
}

// watch parts from a client that has died.
func (a *attachment) watch() {
	var buf [16]byte
	for {
		if _, err := a.alive.Read(buf[:]); err != nil {
			a.part(wire.PartBroken)
			return
		}
	}
}

// read carries the client's input to the process.
func (a *attachment) read() {
	buf := make([]byte, 32<<10)
	for {
		n, err := a.in.Read(buf)
		pass, detach := a.keys.feed(buf[:n])
		if err != nil {
			pass = append(pass[:len(pass):len(pass)], a.keys.rest()...)
		}
		if len(pass) > 0 && a.s.input(pass) != nil {
			break // the process does not read any more: leave the rest to others
		}
		if detach {
			a.part(wire.PartDetached)
			return
		}
		if err != nil {
			break
		}
	}
	a.inputEnded()
}

// inputEnded closes the process's stdin when this client's was the one it was
// opened for. A terminal stays: its end of file is a key.
func (a *attachment) inputEnded() {
	a.in.Close()
	if a.s.stdinOnce && !a.s.tty {
		a.s.closeStdin()
	}
	if a.out[stdout] == nil && a.out[stderr] == nil && a.alive == nil {
		a.part(wire.PartEnded)
	}
}

// lost takes note that a client does not read one of its streams any more; the
// process does not learn of it. Without any left there is nothing to stay for.
func (a *attachment) lost(broken *sink) {
	broken.to.Close()
	for _, k := range a.out {
		if k != nil && !k.isDead() {
			return
		}
	}
	a.part(wire.PartBroken)
}

// waiting returns what is to be waited for until all output has been taken.
func (a *attachment) waiting() []<-chan struct{} {
	var all []<-chan struct{}
	for _, k := range a.out {
		if k == nil {
			continue
		}
		if ch := k.flushed(); ch != nil {
			all = append(all, ch)
		}
	}
	return all
}

// conclude parts from the client once it has taken everything. A client that
// never does keeps the monitor, until it dies.
func (a *attachment) conclude() {
	waiting := a.waiting()
	if len(waiting) == 0 {
		a.part(wire.PartEnded)
		return
	}
	a.s.v.begin()
	go func() {
		defer a.s.v.end()
		for _, ch := range waiting {
			<-ch
		}
		a.part(wire.PartEnded)
	}()
}

// part closes everything of the client, once, alive last and with the reason.
func (a *attachment) part(why byte) {
	a.once.Do(func() {
		a.forget()
		if a.in != nil {
			a.in.Close()
		}
		for _, k := range a.out {
			if k != nil {
				k.kill()
				k.to.Close()
			}
		}
		if a.alive != nil {
			a.s.control(a.alive, func(fd int) { // a pipe has no room for a reason
				unix.Sendto(fd, []byte{why}, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
			})
			a.alive.Close()
		}
		close(a.gone)
	})
}

func (a *attachment) forget() {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	for i, c := range a.s.clients {
		if c == a {
			a.s.clients = append(a.s.clients[:i:i], a.s.clients[i+1:]...)
			return
		}
	}
}
