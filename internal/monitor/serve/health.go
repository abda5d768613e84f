package serve

import (
	"sync"
	"syscall"
	"time"

	"fief/internal/monitor/wire"
	"fief/internal/words/fault"
)

// What is kept of a container's probes: Docker's bounds (moby daemon/health.go).
const (
	keptResults = 5
	keptOutput  = 4096
)

// health runs a container's probes for as long as its process 1 runs, whether
// there is a daemon or not.
type health struct {
	v    *server
	conf *wire.Health
	box  *session
	file []int                // descriptors of the probes' plan; each probe gets copies
	now  chan chan<- struct{} // asks for a probe at once; told when it is over

	mu    sync.Mutex
	state wire.Checked // guarded by mu
}

// watch makes the monitor probe its container. A second call is refused: what
// is asked for does not change while a container runs.
func (v *server) watch(m *wire.Health, files []int) (err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	defer func() {
		if err != nil {
			wire.CloseAll(files)
		}
	}()
	if v.box == nil || !v.box.running() {
		return notRunning("")
	}
	if v.health != nil {
		return fault.New(fault.Exists, "watch", v.id, "its health is checked already", "")
	}
	named := 0
	for _, slot := range m.Proc.Slots {
		if slot == wire.SlotFile {
			named++
		}
	}
	if named != len(files) {
		return fault.New(fault.Invalid, "watch", v.id, "a probe's plan and its descriptors do not fit together", "")
	}
	v.health = &health{v: v, conf: m, box: v.box, file: files, now: make(chan chan<- struct{}), state: wire.Checked{State: wire.Starting}}
	v.live++ // until the container has ended
	go v.health.run()
	return nil
}

// check has a probe run now and returns when its result has been told.
func (v *server) check() error {
	v.mu.Lock()
	h := v.health
	v.mu.Unlock()
	if h == nil {
		return fault.Say(fault.Conflict, "container has no defined healthcheck")
	}
	done := make(chan struct{})
	select {
	case h.now <- done:
	case <-h.box.exited:
		return notRunning("")
	}
	<-done
	return nil
}

func (h *health) run() {
	defer h.v.end()
	timer := time.NewTimer(h.pause())
	defer timer.Stop()
	defer wire.CloseAll(h.file)
	for {
		var done chan<- struct{}
		select {
		case <-h.box.exited:
			return
		case <-timer.C:
		case done = <-h.now:
		}
		h.note(h.probe())
		if done != nil {
			close(done)
		}
		timer.Reset(h.pause())
	}
}

// starting reports whether failures do not count yet.
func (h *health) starting(at time.Time) bool {
	return h.state.State == wire.Starting && at.Sub(h.box.began) < time.Duration(h.conf.StartPeriod)
}

// pause is the time to the next probe.
func (h *health) pause() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.starting(time.Now()) && h.conf.StartInterval > 0 {
		return time.Duration(h.conf.StartInterval)
	}
	return time.Duration(h.conf.Interval)
}

// probe runs one probe to its end and kills it when it takes too long.
func (h *health) probe() wire.Check {
	began := time.Now()
	out := wire.Check{Start: began.UnixNano()}
	s := newSession(h.v, "a health check", &h.conf.Proc)
	s.tap = &tap{}
	s.over = make(chan *wire.Exited, 1)
	proc := h.conf.Proc
	files, err := copies(h.file)
	if err == nil {
		err = s.launch(&proc, files, Moments{})
	}
	if err == nil {
		s.run()
		h.wait(s, &out)
	} else {
		out.Code, out.Output = -1, err.Error()
	}
	out.End = time.Now().UnixNano()
	return out
}

// copies duplicates descriptors; on failure there are none.
func copies(files []int) ([]int, error) {
	var out []int
	for _, f := range files {
		n, err := duplicate(f)
		if err != nil {
			wire.CloseAll(out)
			return nil, fault.Wrap(fault.Exhausted, "duplicate", "descriptor", err, "")
		}
		out = append(out, n)
	}
	return out, nil
}

func (h *health) wait(s *session, out *wire.Check) {
	limit := time.NewTimer(time.Duration(h.conf.Timeout))
	defer limit.Stop()
	select {
	case e := <-s.over:
		out.Code, out.Output = e.Code, s.tap.text()
	case <-limit.C:
		s.signal(syscall.SIGKILL)
		select {
		case <-s.exited:
		case <-h.box.exited: // in uninterruptible sleep even a killed process stays
		case <-time.After(time.Second):
		}
		out.Code = -1
		out.Output = "Health check exceeded timeout (" + time.Duration(h.conf.Timeout).String() + ")"
		if said := s.tap.text(); said != "" {
			out.Output += ": " + said
		}
	}
}

// note takes a result into the state, by Docker's rules, and tells the daemon.
func (h *health) note(r wire.Check) {
	select {
	case <-h.box.exited:
		return // killed with the container: says nothing about it
	default:
	}
	h.mu.Lock()
	st := &h.state
	st.Results = append(st.Results, r)
	if len(st.Results) > keptResults {
		st.Results = append([]wire.Check(nil), st.Results[len(st.Results)-keptResults:]...)
	}
	switch {
	case r.Code == 0:
		st.Streak, st.State = 0, wire.Healthy
	case !h.starting(time.Unix(0, r.Start)):
		st.Streak++
		if st.Streak >= h.conf.Retries {
			st.State = wire.Unhealthy
		}
	}
	h.mu.Unlock()
	h.v.mu.Lock()
	conn := h.v.conn
	h.v.mu.Unlock()
	h.tell(conn)
}

// tell sends the state, if there is a daemon.
func (h *health) tell(conn *wire.Conn) {
	if h == nil || conn == nil {
		return
	}
	h.mu.Lock()
	state := h.state
	h.mu.Unlock()
	conn.Send(0, &state, nil)
}

// tap keeps the beginning of what a probe says.
type tap struct {
	mu   sync.Mutex
	said []byte
	more bool
}

func (t *tap) write(p []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := min(len(p), keptOutput-len(t.said))
	t.said = append(t.said, p[:n]...)
	t.more = t.more || n < len(p)
}

func (t *tap) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.more {
		return string(t.said) + "..."
	}
	return string(t.said)
}
