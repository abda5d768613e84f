// Package monitor is the daemon's side of fief-mon, the small process that
// owns a running container: a pool of idle monitors, the requests to a busy
// one, and how to find it again after a restart of the daemon. What the
// monitor itself does is in monitor/serve, what they say in monitor/wire, the
// logs it writes in monitor/lines, monitor/filelog and monitor/journal, how they
// are read in monitor/logread.
package monitor

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"fief/internal/monitor/wire"
	"fief/internal/words/fault"
	"fief/internal/words/plan"
)

// Monitor is a connection with one monitor process. Its methods may be called
// from several goroutines.
type Monitor struct {
	PID   int    // of the monitor
	Label string // build label of the monitor
	Plans uint32 // number of the plans it carries out: see Understands
	ID    string // of its container, as it said when the connection was made

	conn       *wire.Conn
	exits      chan Exit
	checkedNow chan struct{} // signalled when health has changed

	mu      sync.Mutex
	seq     uint32
	waiting map[uint32]chan wire.Message
	health  Health
	watches bool           // it has told of its container's health
	queue   []*wire.Exited // not yet taken from exits
	more    chan struct{}  // signalled when queue has grown
	gone    chan struct{}  // closed when the connection is
}

// Exit is the end of a process: Target is empty for the container's own, else
// an exec id. Code is 128+n after signal n.
type Exit struct {
	Target string
	Code   int
	Signal int
	At     time.Time
}

// greet reads Hello from a new connection, which it closes on failure.
func greet(ctx context.Context, conn *wire.Conn) (*Monitor, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(10 * time.Second)
	}
	conn.SetReadDeadline(deadline)
	_, m, files, err := conn.Recv()
	wire.CloseAll(files)
	conn.SetReadDeadline(time.Time{})
	hello, ok := m.(*wire.Hello)
	switch {
	case err == io.EOF:
		err = unavailable("it ended before it answered")
	case err != nil:
	case !ok:
		err = fault.New(fault.Corrupt, "connect to", "monitor", "it did not say hello", "")
	case hello.Version != wire.Version:
		err = fault.New(fault.Unsupported, "connect to", "monitor", "it speaks another version of the protocol",
			"stop the container with the fiefd that started it")
	case hello.Refused:
		err = fault.New(fault.Busy, "connect to", "monitor", "another daemon holds it", "")
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &Monitor{PID: int(hello.PID), Label: hello.Label, Plans: hello.Plans, ID: hello.ID, conn: conn,
		exits: make(chan Exit), checkedNow: make(chan struct{}, 1), waiting: map[uint32]chan wire.Message{},
		more: make(chan struct{}, 1), gone: make(chan struct{})}, nil
}

func unavailable(cause string) error {
	return fault.New(fault.Unavailable, "talk to", "monitor", cause, "")
}

// run starts the goroutines of a greeted monitor.
func (m *Monitor) run() {
	go m.receive()
	go m.deliver()
}

// receive hands answers to those who wait and queues exits.
func (m *Monitor) receive() {
	for {
		seq, msg, files, err := m.conn.Recv()
		if err != nil {
			break
		}
		wire.CloseAll(files)
		if h, ok := msg.(*wire.Checked); ok {
			m.checked(h)
			continue
		}
		m.mu.Lock()
		if e, ok := msg.(*wire.Exited); ok {
			m.queue = append(m.queue, e)
			select {
			case m.more <- struct{}{}:
			default:
			}
		} else if ch := m.waiting[seq]; ch != nil {
			delete(m.waiting, seq)
			ch <- msg
		}
		m.mu.Unlock()
	}
	m.conn.Close()
	close(m.gone)
}

// deliver passes exits on and acknowledges each when it was taken. What came
// before the connection ended is still delivered.
func (m *Monitor) deliver() {
	defer close(m.exits)
	for {
		m.mu.Lock()
		queue := m.queue
		m.queue = nil
		m.mu.Unlock()
		for _, e := range queue {
			m.exits <- Exit{Target: e.Target, Code: int(e.Code), Signal: int(e.Signal), At: time.Unix(0, e.At)}
			m.conn.Send(0, &wire.Ack{Number: e.Number}, nil)
		}
		if len(queue) > 0 {
			continue
		}
		select {
		case <-m.more:
		case <-m.gone:
			m.mu.Lock()
			left := len(m.queue)
			m.mu.Unlock()
			if left == 0 {
				return
			}
		}
	}
}

// Exits returns the channel of ends: every process started here or found
// running, once, when all it wrote is in the log. Taking a value acknowledges
// it; one not taken is sent again to the next daemon. Somebody must take them.
// The channel is closed when the connection is gone; unless the container's
// exit came before, ReadExit or Reconnect tell more.
func (m *Monitor) Exits() <-chan Exit { return m.exits }

// Gone returns a channel that is closed when the connection is.
func (m *Monitor) Gone() <-chan struct{} { return m.gone }

// Close ends the connection. An idle monitor ends with it, a busy one goes on
// and waits for Reconnect.
func (m *Monitor) Close() { m.conn.Close() }

// call sends a request and waits for its answer.
func (m *Monitor) call(ctx context.Context, req wire.Message, files []*os.File) (wire.Message, error) {
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(rawFD(f))
	}
	ch := make(chan wire.Message, 1)
	m.mu.Lock()
	m.seq++
	if m.seq == 0 { // 0 is for what is no answer
		m.seq++
	}
	seq := m.seq
	m.waiting[seq] = ch
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.waiting, seq)
		m.mu.Unlock()
	}()
	err := m.conn.Send(seq, req, fds)
	for _, f := range files {
		keepAlive(f)
	}
	if err != nil {
		return nil, err
	}
	select {
	case msg := <-ch:
		return msg, nil
	case <-m.gone:
		select {
		case msg := <-ch:
			return msg, nil
		default:
			return nil, unavailable("it has ended")
		}
	case <-ctx.Done():
		return nil, fault.Wrap(fault.Canceled, "wait for", "monitor", ctx.Err(), "")
	}
}

// do is call for requests that are answered by Done.
func (m *Monitor) do(ctx context.Context, req wire.Message, files []*os.File) (pid int, err error) {
	msg, err := m.call(ctx, req, files)
	if err != nil {
		return 0, err
	}
	done, ok := msg.(*wire.Done)
	if !ok {
		return 0, unavailable("it answered another question")
	}
	switch done.Kind {
	case wire.KindFailed:
		return 0, &plan.Failure{Step: int(done.Step), Call: int(done.Call), Errno: syscall.Errno(done.Errno)}
	case wire.KindFault:
		return 0, &fault.Error{Class: fault.Class(done.Class), Cause: errors.New(done.Text), Hint: done.Hint}
	}
	return int(done.PID), nil
}

// Signal sends a signal to the container's process 1 (target empty) or to an
// exec session's process. Conflict or NotFound when it is not running.
func (m *Monitor) Signal(ctx context.Context, target string, sig syscall.Signal) error {
	_, err := m.do(ctx, &wire.Signal{Target: target, Number: uint32(sig)}, nil)
	return err
}

// Resize sets the size of a process's terminal; its program gets SIGWINCH.
func (m *Monitor) Resize(ctx context.Context, target string, rows, cols uint16) error {
	_, err := m.do(ctx, &wire.Resize{Target: target, Rows: rows, Cols: cols}, nil)
	return err
}

// State is what a monitor knows of its container.
type State struct {
	ID      string
	PID     int // host pid of process 1, 0 when it does not run
	Running bool
	Started time.Time
	Execs   []ExecState
}

// ExecState is one running exec session.
type ExecState struct {
	ID  string
	PID int
}

// State asks the monitor for what runs.
func (m *Monitor) State(ctx context.Context) (State, error) {
	msg, err := m.call(ctx, &wire.Query{}, nil)
	if err != nil {
		return State{}, err
	}
	st, ok := msg.(*wire.Status)
	if !ok {
		return State{}, unavailable("it answered another question")
	}
	out := State{ID: st.ID, PID: int(st.PID), Running: st.PID != 0, Started: time.Unix(0, st.Started)}
	for _, e := range st.Execs {
		out.Execs = append(out.Execs, ExecState{ID: e.ID, PID: int(e.PID)})
	}
	return out, nil
}
