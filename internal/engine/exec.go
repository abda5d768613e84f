package engine

import (
	"cmp"
	"context"
	"maps"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"fief/internal/monitor"
	"fief/internal/words/ask"
	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
	"fief/internal/words/record"
	"fief/internal/words/ref"
)

// session is an exec session, from its creation to the removal of its
// container.
type session struct {
	ask ask.Exec

	mu      sync.Mutex // leaf
	rec     record.Exec
	by      *monitor.Monitor   // guarded by mu; who carries it out; nil: its container's own monitor
	began   time.Time          // guarded by mu; of what a stand-in carries out
	waiters []chan record.Exit // guarded by mu
}

// ExecCreate makes a session in a running container; nothing is started.
func (e *Engine) ExecCreate(_ context.Context, name string, a ask.Exec) (string, error) {
	c, err := e.table.find(name)
	if err != nil {
		return "", err
	}
	if c.record().State.Status != record.Running {
		return "", notRunning("", c.record())
	}
	if err := refusePaused(c.record(), "exec"); err != nil {
		return "", err
	}
	if len(a.Cmd) == 0 || a.Cmd[0] == "" {
		return "", fault.Say(fault.Invalid, "No exec command specified")
	}
	s := &session{ask: a, rec: record.Exec{
		ID: ref.NewID(), Container: c.id, Path: a.Cmd[0], Args: a.Cmd[1:], User: a.User, TTY: a.TTY,
		OpenStdin: a.OpenStdin, AttachOut: a.AttachOut, AttachErr: a.AttachErr, Privileged: a.Privileged,
	}}
	e.table.addSession(s)
	e.tellExec("exec_create: "+s.command(), s, nil)
	return s.rec.ID, nil
}

// tellExec publishes an event of a session, which docker clients see as one of
// its container. A container that is gone had its sessions with it.
func (e *Engine) tellExec(action string, s *session, more map[string]string) {
	c := e.table.known(s.rec.Container)
	if c == nil {
		return
	}
	attrs := map[string]string{"execID": s.rec.ID}
	maps.Copy(attrs, more)
	e.tell(action, c.record(), attrs)
}

// command is the command as dockerd writes it into events: with a space at the
// end when there are no arguments.
func (s *session) command() string { return s.rec.Path + " " + strings.Join(s.rec.Args, " ") }

func (t *table) addSession(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.execs[s.rec.ID] = s
}

// session finds a session by its id. Those that an earlier daemon has started are
// known when every monitor has been heard.
func (e *Engine) session(id string) (*session, error) {
	if s := e.table.session(id); s != nil {
		return s, nil
	}
	if e.hearNow != nil {
		e.hearNow()
	}
	if s := e.table.session(id); s != nil {
		return s, nil
	}
	return nil, fault.Say(fault.NotFound, "No such exec instance: "+id)
}

func (t *table) session(id string) *session {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.execs[id]
}

// ExecStart starts a session's process, once, attached as given.
func (e *Engine) ExecStart(ctx context.Context, id string, at Attach) error {
	s, err := e.session(id)
	if err != nil {
		return err
	}
	c, err := e.table.find(s.rec.Container)
	if err != nil {
		return err
	}
	mon, err := c.monitor("exec in")
	if err == nil {
		err = refusePaused(c.record(), "exec")
	}
	if err == nil {
		mon, err = e.carrier(ctx, c, mon)
	}
	if err != nil {
		return err
	}
	if err := s.begin(mon); err != nil {
		return err
	}
	e.tellExec("exec_start: "+s.command(), s, nil) // dockerd tells it before the start, too
	pid, err := e.execProcess(ctx, c, mon, s, at)
	if err != nil {
		s.end(fault.ExitCodeOf(err))
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rec.Running { // it may have ended by now
		s.rec.PID = pid
	}
	return nil
}

func (e *Engine) execProcess(ctx context.Context, c *container, mon *monitor.Monitor, s *session, at Attach) (int, error) {
	b, err := e.prepareExec(c.record(), s.ask)
	if err != nil {
		return 0, err
	}
	defer b.close()
	encoded, err := b.encode()
	if err != nil {
		return 0, err
	}
	failpoint.Hit("exec-starting")
	pid, err := mon.Exec(ctx, monitor.Exec{
		ID: s.rec.ID, Plan: encoded, Names: b.plan.Files, PlanFiles: b.slots(), TTY: s.ask.TTY, OpenStdin: s.ask.OpenStdin,
		Console: s.ask.ConsoleSize, Attach: attachments(at),
	})
	if err != nil {
		return 0, b.explain(err)
	}
	return pid, nil
}

// attachments is a list of one, or of none when nothing is attached.
func attachments(at Attach) []monitor.Attach {
	for _, f := range []*os.File{at.Stdin, at.Stdout, at.Stderr} {
		if f != nil {
			return []monitor.Attach{monitorAttach(at)}
		}
	}
	return nil
}

func (s *session) begin(by *monitor.Monitor) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rec.Started {
		return fault.Say(fault.Conflict, "exec session "+s.rec.ID+" has already run")
	}
	s.rec.Started, s.rec.Running = true, true
	s.by, s.began = by, time.Now()
	return nil
}

// end records a session's end and wakes who waits for it; false when it had
// ended before.
func (s *session) end(code int) bool {
	s.mu.Lock()
	if !s.rec.Running {
		s.mu.Unlock()
		return false
	}
	s.rec.Running, s.rec.ExitCode, s.rec.PID = false, code, 0
	list := s.waiters
	s.waiters = nil
	s.mu.Unlock()
	for _, ch := range list {
		ch <- record.Exit{Code: code}
		close(ch)
	}
	return true
}

// execEnded is told by the monitor.
func (e *Engine) execEnded(id string, code int) {
	if s := e.table.session(id); s != nil {
		e.endSession(s, code)
	}
}

func (e *Engine) endSession(s *session, code int) {
	if s.end(code) {
		e.tellExec("exec_die", s, map[string]string{"exitCode": strconv.Itoa(code)})
	}
}

// endSessions ends what still ran in a container that has ended: the kernel
// killed it with the pid namespace.
func (e *Engine) endSessions(id string) {
	for _, s := range e.sessionsOf(id) {
		e.endSession(s, exitLost)
	}
}

// sessionsOf lists the sessions of a container.
func (e *Engine) sessionsOf(id string) []*session {
	e.table.mu.RLock()
	defer e.table.mu.RUnlock()
	var list []*session
	for _, s := range e.table.execs {
		if s.rec.Container == id {
			list = append(list, s)
		}
	}
	return list
}

func (s *session) record() record.Exec {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rec
}

// ExecWait returns a channel that gets the session's exit.
func (e *Engine) ExecWait(_ context.Context, id string) (<-chan record.Exit, error) {
	s, err := e.session(id)
	if err != nil {
		return nil, err
	}
	ch := make(chan record.Exit, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rec.Started && !s.rec.Running {
		ch <- record.Exit{Code: s.rec.ExitCode}
		close(ch)
		return ch, nil
	}
	s.waiters = append(s.waiters, ch)
	return ch, nil
}

// ExecInspect returns what is known of a session.
func (e *Engine) ExecInspect(_ context.Context, id string) (record.Exec, error) {
	s, err := e.session(id)
	if err != nil {
		return record.Exec{}, err
	}
	return s.record(), nil
}

// ExecResize tells a session's terminal its size.
func (e *Engine) ExecResize(ctx context.Context, id string, rows, cols uint16) error {
	mon, err := e.execMonitor(id)
	if err != nil {
		return err
	}
	return mon.Resize(ctx, id, rows, cols)
}

// ExecKill sends a signal to a session's process.
func (e *Engine) ExecKill(ctx context.Context, id, sigName string) error {
	sig, err := parseSignal(sigName)
	if err != nil {
		return err
	}
	mon, err := e.execMonitor(id)
	if err != nil {
		return err
	}
	return mon.Signal(ctx, id, sig)
}

func (e *Engine) execMonitor(id string) (*monitor.Monitor, error) {
	s, err := e.session(id)
	if err != nil {
		return nil, err
	}
	c, err := e.table.find(s.rec.Container)
	if err != nil {
		return nil, err
	}
	mon, err := c.monitor("reach exec session in")
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return cmp.Or(s.by, mon), nil
}
