// Package serve is the monitor's own half: one container, its standard
// streams, log, exec sessions and exit code, and the daemons that come and go.
//
// One goroutine waits for each process (on its pidfd), one reads each output
// stream, one each attached stdin; all of them wait in the runtime's poller,
// none holds a thread, none wakes up without a reason.
package serve

import (
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/monitor/lines"
	"fief/internal/monitor/wire"
	"fief/internal/words/fault"
	"fief/internal/words/plan"
)

// Process is a program that was started. PIDFD and Console (the master side of
// its terminal, -1 without one) belong to whoever called Launch.
type Process struct {
	PID, PIDFD, Console int
}

// Launch carries out an encoded plan with the descriptors it expects, in slot
// order, which it does not close. The program is a child of this process and
// waited for by it. A step that failed is a *plan.Failure.
type Launch func(plan []byte, files []int, at Moments) (Process, error)

// Moments are what is done in the course of a launch; each may be nil and is
// called once at most, before Launch returns. When one fails the child is ended
// and its error returned.
type Moments struct {
	// Made is called when the child's namespaces exist and nothing else has
	// happened in it.
	Made func(pid int) error
	// Meanwhile is called best while the child is at work.
	Meanwhile func() error
}

// Config is what a monitor is made of. Conn is the daemon's SOCK_SEQPACKET
// connection, taken over. Label is the build label told to daemons.
type Config struct {
	Conn     int
	Label    string
	Launch   Launch
	Compress Compress
}

// Compress compresses an old log file: see filelog.Config.
type Compress func(stop <-chan struct{}, src, dst *os.File) error

// server is one monitor.
type server struct {
	launch   Launch
	label    string
	compress Compress

	mu      sync.Mutex // order: before a session's; never held across I/O
	conn    *wire.Conn // the controlling daemon's, nil while there is none
	started bool       // a Start was accepted; there is no second
	failed  bool       // and it failed
	standIn bool       // what was accepted is an Adopt: box is no child
	id      string
	dir     int                 // O_PATH descriptor of the run directory, -1 before a start
	log     lines.Sink          // nil: none
	box     *session            // the container's process 1; nil before it runs
	health  *health             // nil: not checked
	execs   map[string]*session // running exec sessions
	exits   []*wire.Exited      // not acknowledged
	numbers uint64              // of exits so far
	live    int                 // starts, sessions and attachments that have not ended
	over    bool
	done    chan struct{} // closed when over
}

// Run serves until there is nothing left to do: an idle monitor ends with its
// daemon, and so does a stand-in for which nothing runs; a busy one when its container has ended, its exit has been written
// to the run directory, and the daemon has acknowledged it or is gone.
func Run(cfg Config) error {
	conn, err := wire.NewConn(cfg.Conn)
	if err != nil {
		return err
	}
	v := &server{launch: cfg.Launch, label: cfg.Label, compress: cfg.Compress, dir: -1,
		execs: map[string]*session{}, done: make(chan struct{})}
	if conn.Send(0, v.hello(), nil) != nil {
		return nil // the daemon has ended meanwhile
	}
	v.conn = conn
	go v.control(conn)
	<-v.done
	return nil
}

func (v *server) hello() *wire.Hello {
	v.mu.Lock()
	defer v.mu.Unlock()
	return &wire.Hello{Version: wire.Version, Label: v.label, PID: uint32(os.Getpid()), ID: v.id, Plans: wire.Plans}
}

// control answers one daemon until it is gone.
func (v *server) control(conn *wire.Conn) {
	for {
		seq, m, files, err := conn.Recv()
		if err != nil {
			if err != io.EOF {
				complain(err)
			}
			break
		}
		v.handle(conn, seq, m, files)
	}
	v.mu.Lock()
	if v.conn == conn {
		v.conn = nil
	}
	v.settle()
	v.mu.Unlock()
	conn.Close()
}

// handle answers one request. Starts run beside the others: a program on a
// slow file system must not hold up a signal for another one.
func (v *server) handle(conn *wire.Conn, seq uint32, m wire.Message, files []int) {
	var err error
	switch m := m.(type) {
	case *wire.Start:
		v.begin()
		go v.answerStart(conn, seq, func() (int, error) { return v.start(m, files) })
		return
	case *wire.Exec:
		v.begin()
		go v.answerStart(conn, seq, func() (int, error) { return v.exec(m, files) })
		return
	case *wire.Adopt:
		err = v.adopt(m, files[0])
	case *wire.Attach:
		err = v.attach(m, files)
	case *wire.Signal:
		err = v.signal(m.Target, syscall.Signal(m.Number))
	case *wire.Resize:
		err = v.resize(m.Target, m.Rows, m.Cols)
	case *wire.Query:
		conn.Send(seq, v.status(), nil)
		v.health.tell(conn)
		return
	case *wire.Health:
		err = v.watch(m, files)
	case *wire.CheckNow:
		v.begin()
		go v.answerStart(conn, seq, func() (int, error) { return 0, v.check() })
		return
	case *wire.Ack:
		v.acknowledged(m.Number)
		return
	default:
		wire.CloseAll(files)
		err = fault.New(fault.Unsupported, "answer", "the daemon", "not a request that this monitor knows", "restart the container to have a monitor of this build")
	}
	conn.Send(seq, answer(0, err), nil)
}

func (v *server) answerStart(conn *wire.Conn, seq uint32, start func() (int, error)) {
	pid, err := start()
	// A reply that cannot be sent is lost with the daemon that asked for it;
	// the next daemon asks for the state.
	conn.Send(seq, answer(pid, err), nil)
	v.end()
}

// answer puts an error into words of the wire.
func answer(pid int, err error) *wire.Done {
	switch e := err.(type) {
	case nil:
		return &wire.Done{PID: uint32(pid)}
	case *plan.Failure:
		return &wire.Done{Kind: wire.KindFailed, Step: int32(e.Step), Call: int32(e.Call), Errno: uint32(e.Errno)}
	}
	return &wire.Done{Kind: wire.KindFault, Class: uint8(fault.ClassOf(err)), Text: err.Error(), Hint: fault.HintOf(err)}
}

// begin and end count what keeps the monitor alive.
func (v *server) begin() {
	v.mu.Lock()
	v.live++
	v.mu.Unlock()
}

func (v *server) end() {
	v.mu.Lock()
	v.live--
	v.settle()
	v.mu.Unlock()
}

// settle ends the monitor when nothing is left to do. Preconditions: v.mu held.
func (v *server) settle() {
	idle := !v.started || v.failed || v.standIn
	if v.over || v.live > 0 || v.conn != nil && (idle || len(v.exits) > 0) {
		return
	}
	v.over = true
	close(v.done)
}

func (v *server) acknowledged(number uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i, e := range v.exits {
		if e.Number == number {
			v.exits = append(v.exits[:i], v.exits[i+1:]...)
			break
		}
	}
	v.settle()
}

// ended records the end of a session and tells the daemon.
func (v *server) ended(s *session, e *wire.Exited) {
	if s.over != nil {
		s.over <- e
		return
	}
	if s.target == "" {
		v.writeExit(e)
	}
	v.mu.Lock()
	v.numbers++
	e.Number = v.numbers
	v.exits = append(v.exits, e)
	if s.target != "" {
		delete(v.execs, s.target)
	}
	conn := v.conn
	v.mu.Unlock()
	if conn != nil {
		conn.Send(0, e, nil)
	}
}

// writeExit leaves the exit file: complete or not at all, whatever kills us.
// The run directory may be gone when the container was removed by force. The
// socket goes before the daemon hears of the end, because from then on another
// monitor may be given the same directory.
func (v *server) writeExit(e *wire.Exited) {
	const tmp = wire.ExitFile + ".new"
	fd, err := unix.Openat(v.dir, tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err == nil {
		_, err = unix.Write(fd, wire.FormatExit(e))
		unix.Close(fd)
	}
	if err == nil {
		err = unix.Renameat(v.dir, tmp, v.dir, wire.ExitFile)
	}
	if err != nil && err != unix.ENOENT {
		complain(fault.Wrap(fault.Internal, "write", "exit file", err, ""))
	}
	v.unlisten()
}

// find returns the session of a running process.
func (v *server) find(target string) (*session, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.box
	if target != "" {
		s = v.execs[target]
	}
	if s == nil {
		return nil, notRunning(target)
	}
	return s, nil
}

func notRunning(target string) error {
	if target == "" {
		return fault.Say(fault.Conflict, "container is not running")
	}
	return fault.Say(fault.NotFound, "exec session "+target+" is not running")
}

func (v *server) signal(target string, sig syscall.Signal) error {
	s, err := v.find(target)
	if err != nil {
		return err
	}
	return s.signal(sig)
}

func (v *server) resize(target string, rows, cols uint16) error {
	s, err := v.find(target)
	if err != nil {
		return err
	}
	return s.resize(rows, cols)
}

func (v *server) attach(m *wire.Attach, files []int) error {
	s, err := v.find(m.Target)
	if err != nil {
		wire.CloseAll(files)
		return err
	}
	a, err := s.register(m.Client, files)
	if err != nil {
		return err
	}
	a.listen()
	return nil
}

func (v *server) status() *wire.Status {
	v.mu.Lock()
	defer v.mu.Unlock()
	st := &wire.Status{ID: v.id}
	if v.box != nil && v.box.running() {
		st.PID, st.Started = uint32(v.box.pid), v.box.began.UnixNano()
	}
	for id, s := range v.execs {
		if s != nil { // else it is being started
			st.Execs = append(st.Execs, wire.ExecStatus{ID: id, PID: uint32(s.pid)})
		}
	}
	return st
}

// complain tells the daemon's log, which is our standard error when the daemon
// debugs, of what nobody waits to hear.
func complain(err error) {
	os.Stderr.WriteString(time.Now().UTC().Format(time.RFC3339) + " fief-mon: " + err.Error() + "\n")
}
