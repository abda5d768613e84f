package monitor

import (
	"context"
	"os"
	"time"

	"fief/internal/monitor/wire"
)

// Understands reports whether the monitor can carry out plans of this build.
// Whatever needs no plan can be asked of any monitor.
func (m *Monitor) Understands() bool { return m.Plans == wire.Plans }

// Adoption is a running container whose own monitor does not understand this
// build's plans. Dir exists; PIDFD is of its process 1, and stays the caller's.
type Adoption struct {
	ID      string
	Dir     string
	PID     int
	Started time.Time
	PIDFD   *os.File
}

// Adopt makes an idle monitor the stand-in of the container's own: Exec, Watch
// and what follows from them can be asked of it, and Reconnect finds it by Dir.
// It ends when the daemon is gone and nothing runs that it has started.
func (m *Monitor) Adopt(ctx context.Context, a Adoption) error {
	_, err := m.do(ctx, &wire.Adopt{ID: a.ID, Dir: a.Dir, PID: uint32(a.PID), Started: a.Started.UnixNano()}, []*os.File{a.PIDFD})
	return err
}
