package serve

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/monitor/lines"
	"fief/internal/monitor/wire"
	"fief/internal/words/fault"
)

// start makes this monitor the owner of a container. On failure the monitor is
// spent: it takes no second one and ends with its daemon.
func (v *server) start(m *wire.Start, files []int) (pid int, err error) {
	v.mu.Lock()
	if v.started {
		v.mu.Unlock()
		wire.CloseAll(files)
		return 0, fault.New(fault.Conflict, "start", m.ID, "this monitor has a container", "")
	}
	v.started, v.id = true, m.ID
	v.mu.Unlock()
	box, offer := -1, -1
	if m.Net.Wait {
		offer, files = files[len(files)-1], files[:len(files)-1]
		defer unix.Close(offer)
	}
	if m.Net.Port != 0 {
		box, files = files[len(files)-1], files[:len(files)-1]
		defer unix.Close(box)
	}
	defer func() {
		if err != nil {
			v.mu.Lock()
			v.failed = true
			v.mu.Unlock()
			v.unlisten()
		}
	}()
	s := newSession(v, "", &m.Proc)
	if err := s.launch(&m.Proc, files, Moments{Made: connect(&m.Net, box, offer), Meanwhile: func() error { return v.prepare(m) }}); err != nil {
		if v.log != nil {
			v.log.Close()
		}
		return 0, err
	}
	v.mu.Lock()
	v.box = s
	v.mu.Unlock()
	s.run()
	return s.pid, nil
}

// prepare makes what the container needs once it has started, while the child
// is on its way: an entry in a file system may take longer than all it does.
func (v *server) prepare(m *wire.Start) error {
	if err := v.listen(m.Dir); err != nil {
		return err
	}
	log, err := v.openLog(m.ID, m.Log)
	v.log = log
	return err
}

// exec starts another process in the container.
func (v *server) exec(m *wire.Exec, files []int) (int, error) {
	v.mu.Lock()
	box := v.box
	_, taken := v.execs[m.ID]
	taken = taken || m.ID == ""
	if !taken {
		v.execs[m.ID] = nil // the id is ours from here on
	}
	v.mu.Unlock()
	var err error
	s := newSession(v, m.ID, &m.Proc)
	switch {
	case taken:
		wire.CloseAll(files)
		return 0, fault.New(fault.Exists, "start exec session", m.ID, "the id is in use", "")
	case box == nil || !box.running():
		wire.CloseAll(files)
		err = notRunning("")
	default:
		err = s.launch(&m.Proc, files, Moments{})
	}
	if err != nil {
		v.mu.Lock()
		delete(v.execs, m.ID)
		v.mu.Unlock()
		return 0, err
	}
	v.mu.Lock()
	v.execs[m.ID] = s
	v.mu.Unlock()
	s.run()
	return s.pid, nil
}

// run sets a launched session going.
func (s *session) run() {
	s.v.begin() // ended by follow
	s.pumped.Add(len(s.pumps))
	s.drained.Add(len(s.pumps))
	for _, p := range s.pumps {
		if s.target == "" && s.v.log != nil {
			p.log = lines.NewStream(s.v.log, p.name)
		}
		go p.run()
	}
	s.mu.Lock()
	clients := append([]*attachment(nil), s.clients...)
	s.mu.Unlock()
	for _, a := range clients {
		a.listen()
	}
	go s.follow()
}

// launch starts the program with its streams and its first clients. All
// descriptors are used up, also on failure, which leaves nothing behind.
func (s *session) launch(p *wire.Proc, files []int, at Moments) error {
	table, clients := split(p, files)
	err := s.streams(p, table)
	// What is in the table is the program's: after the start only it holds it.
	defer func() {
		for _, fd := range table {
			if fd >= 0 {
				unix.Close(fd)
			}
		}
	}()
	for _, c := range p.Attach {
		n := c.Files()
		if err == nil {
			_, err = s.register(c, clients[:n])
		} else {
			wire.CloseAll(clients[:n])
		}
		clients = clients[n:]
	}
	if err == nil {
		err = s.spawn(p, table, at)
	}
	if err != nil {
		s.abandon()
	}
	return err
}

// split puts the descriptors that were sent into the slots they are for, -1
// into the others, and returns those of the clients.
func split(p *wire.Proc, files []int) (table, clients []int) {
	table = make([]int, len(p.Slots))
	for i, slot := range p.Slots {
		table[i] = -1
		if slot == wire.SlotFile {
			table[i], files = files[0], files[1:]
		}
	}
	return table, files
}

// streams fills the slots that the monitor provides.
func (s *session) streams(p *wire.Proc, table []int) error {
	for i, slot := range p.Slots {
		var err error
		switch slot {
		case wire.SlotStdin:
			table[i], err = s.inStream(p)
		case wire.SlotStdout:
			table[i], err = s.outStream(stdout, "stdout")
		case wire.SlotStderr:
			table[i], err = s.outStream(stderr, "stderr")
		case wire.SlotPIDFD:
			table[i], err = s.v.box.dupPIDFD()
		}
		if err != nil {
			return fault.Wrap(fault.Exhausted, "make", "standard streams", err, "")
		}
	}
	return nil
}

// inStream returns the program's end of its stdin.
func (s *session) inStream(p *wire.Proc) (int, error) {
	if !p.OpenStdin {
		return unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	theirs, ours, err := pipe(0)
	s.stdin = ours
	return theirs, err
}

// outStream returns the program's end of an output stream.
func (s *session) outStream(stream int, name string) (int, error) {
	theirs, ours, err := pipe(1)
	if err == nil {
		s.addPump(ours, stream, name)
	}
	return theirs, err
}

func (s *session) addPump(from *os.File, stream int, name string) {
	s.pumps = append(s.pumps, &pump{s: s, stream: stream, name: name, from: from})
}

// pipe makes a pipe of which the program gets end 0 (read) or 1 (write) and we
// the other, in the poller.
func pipe(end int) (theirs int, ours *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return -1, nil, err
	}
	if err := unix.SetNonblock(fds[1-end], true); err != nil {
		wire.CloseAll(fds[:])
		return -1, nil, err
	}
	return fds[end], os.NewFile(uintptr(fds[1-end]), "stdio"), nil
}

// duplicate makes another descriptor of the same file.
func duplicate(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) }

// dupPIDFD returns a duplicate of the descriptor of process 1.
func (s *session) dupPIDFD() (int, error) {
	if s == nil {
		return -1, unix.ESRCH
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fd, err := -1, error(unix.ESRCH)
	if !s.reaped {
		s.control(s.pidfd, func(own int) { fd, err = duplicate(own) })
	}
	return fd, err
}

// spawn runs the launcher and takes over what it returns.
func (s *session) spawn(p *wire.Proc, table []int, at Moments) error {
	s.began = time.Now()
	proc, err := s.v.launch(p.Plan, table, at)
	if err != nil {
		return err
	}
	unix.SetNonblock(proc.PIDFD, true) // cannot fail on a descriptor that is open
	s.pid = proc.PID
	s.pidfd = os.NewFile(uintptr(proc.PIDFD), "pidfd")
	if proc.Console < 0 {
		return nil
	}
	if p.Rows != 0 || p.Cols != 0 {
		unix.IoctlSetWinsize(proc.Console, unix.TIOCSWINSZ, &unix.Winsize{Row: p.Rows, Col: p.Cols})
	}
	s.peer = openPeer(proc.Console)
	unix.SetNonblock(proc.Console, true)
	s.console = os.NewFile(uintptr(proc.Console), "console")
	if p.OpenStdin {
		s.stdin = s.console
	}
	s.addPump(s.console, stdout, "stdout")
	return nil
}

// openPeer opens the program's side of a terminal, whatever mount namespace it
// is in (TIOCGPTPEER, ioctl_tty(2), Linux 4.13); -1 when that is not possible.
func openPeer(console int) int {
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(console), unix.TIOCGPTPEER,
		unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1
	}
	return int(fd)
}

// abandon undoes what was made for a program that did not start.
func (s *session) abandon() {
	s.closeStdin()
	for _, p := range s.pumps {
		p.from.Close()
	}
	s.mu.Lock()
	s.ended = true
	clients := s.clients
	s.mu.Unlock()
	for _, a := range clients {
		a.part(wire.PartEnded)
	}
}
