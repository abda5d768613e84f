package monitor

import (
	"context"
	"os"
	"time"

	"fief/internal/monitor/wire"
)

// Probe is how a container's health is checked: see wire.Health.
type Probe struct {
	Interval, Timeout, StartPeriod, StartInterval time.Duration
	Retries                                       int
	Plan                                          []byte     // of another process in the container
	Names                                         []string   // of its descriptors
	PlanFiles                                     []*os.File // in that order, as of Exec; the monitor keeps copies
}

// Health is what a monitor knows of its container's health.
type Health struct {
	State   wire.Condition
	Streak  int
	Results []Result // the last five, oldest first
}

// Result is one probe's. Code is -1 when it could not be started or was killed.
type Result struct {
	Start, End time.Time
	Code       int
	Output     string
}

// Watch makes the monitor check the container's health, until its end and
// whether there is a daemon or not. Exists: it does so already.
func (m *Monitor) Watch(ctx context.Context, p Probe) error {
	proc := wire.Proc{Plan: p.Plan}
	files, err := fill(&proc, p.Names, p.PlanFiles, nil)
	if err != nil {
		return err
	}
	_, err = m.do(ctx, &wire.Health{Interval: int64(p.Interval), Timeout: int64(p.Timeout), StartPeriod: int64(p.StartPeriod),
		StartInterval: int64(p.StartInterval), Retries: uint32(max(p.Retries, 1)), Proc: proc}, files)
	return err
}

// Watches reports whether the monitor checks its container's health; Health says
// what it found by now, if anything.
func (m *Monitor) Watches(ctx context.Context) (bool, error) {
	// What is known of health comes behind the answer: by the second one it is here.
	for range 2 {
		if _, err := m.State(ctx); err != nil {
			return false, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.watches, nil
}

// CheckNow has a probe run; Health has its result when this returns. Conflict: nothing is checked, or the container has ended.
func (m *Monitor) CheckNow(ctx context.Context) error {
	_, err := m.do(ctx, &wire.CheckNow{}, nil)
	return err
}

// HealthChanged returns a channel that gets a value when Health has changed.
func (m *Monitor) HealthChanged() <-chan struct{} { return m.checkedNow }

// Health returns what the monitor said last.
func (m *Monitor) Health() Health {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.health
}

func (m *Monitor) checked(c *wire.Checked) {
	h := Health{State: c.State, Streak: int(c.Streak)}
	for _, r := range c.Results {
		h.Results = append(h.Results, Result{Start: time.Unix(0, r.Start), End: time.Unix(0, r.End), Code: int(r.Code), Output: r.Output})
	}
	m.mu.Lock()
	m.health, m.watches = h, true
	m.mu.Unlock()
	select {
	case m.checkedNow <- struct{}{}:
	default:
	}
}
