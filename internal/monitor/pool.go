package monitor

import (
	"context"
	"math"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/monitor/wire"
	"fief/internal/words/fault"
)

// PoolConfig says how monitors are made. Binary is the path of fief-mon, Label
// the build label it must have, Size how many idle ones are kept ready (0:
// none), Debug lets them write to the daemon's standard error. When Calm is not nil
// none is made ahead of need before it is closed.
type PoolConfig struct {
	Binary string
	Label  string
	Size   int
	Debug  bool
	Calm   <-chan struct{}
}

// refillPause keeps the starting of a new monitor, some milliseconds of a
// processor, out of the container start that took one.
const refillPause = 30 * time.Millisecond

// Pool keeps idle monitors, so that a start does not wait for a process to
// start. An idle monitor holds nothing and ends with the daemon.
type Pool struct {
	cfg    PoolConfig
	refill chan struct{}
	stop   chan struct{}
	wg     sync.WaitGroup

	mu     sync.Mutex
	idle   []*Monitor
	closed bool
}

// NewPool starts filling a pool. It marks every open descriptor of this process
// from 3 on close-on-exec: what the daemon was started with by mistake must not
// be held open by monitors that outlive it. (What Go opens is marked anyway.)
func NewPool(cfg PoolConfig) *Pool {
	unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) // Linux 5.11; before it we do without
	p := &Pool{cfg: cfg, refill: make(chan struct{}, 1), stop: make(chan struct{})}
	p.wg.Add(1)
	go p.fill()
	return p
}

// Take returns an idle monitor, which is the caller's from here on. It starts
// one when none is ready.
func (p *Pool) Take(ctx context.Context) (*Monitor, error) {
	for {
		p.mu.Lock()
		closed := p.closed
		var m *Monitor
		if n := len(p.idle); n > 0 {
			m, p.idle = p.idle[n-1], p.idle[:n-1]
		}
		p.mu.Unlock()
		if closed {
			return nil, fault.New(fault.Unavailable, "take", "monitor", "the daemon is ending", "")
		}
		select {
		case p.refill <- struct{}{}:
		default:
		}
		if m == nil {
			return spawn(ctx, p.cfg)
		}
		if m.conn.Alive() {
			return m, nil
		}
		m.Close() // it was killed while it waited
	}
}

// Close ends the idle monitors. Those taken are not touched.
func (p *Pool) Close() {
	p.mu.Lock()
	already := p.closed
	p.closed = true
	p.mu.Unlock()
	if already {
		return
	}
	close(p.stop)
	p.wg.Wait()
	for _, m := range p.idle {
		m.Close()
	}
	p.idle = nil
}

// fill keeps the pool full. A monitor that cannot be started is tried again at
// the next Take, which then reports why.
func (p *Pool) fill() {
	defer p.wg.Done()
	if p.cfg.Calm != nil {
		select {
		case <-p.cfg.Calm:
		case <-p.stop:
			return
		}
	}
	for {
		for p.short() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			m, err := spawn(ctx, p.cfg)
			cancel()
			if err != nil {
				break
			}
			p.mu.Lock()
			p.idle = append(p.idle, m)
			p.mu.Unlock()
		}
		select {
		case <-p.refill:
		case <-p.stop:
			return
		}
		select {
		case <-time.After(refillPause):
		case <-p.stop:
			return
		}
	}
}

func (p *Pool) short() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.closed && len(p.idle) < p.cfg.Size
}

// spawn starts a monitor: in a session of its own, so that no terminal's
// signals reach it, with nothing of the daemon's environment or descriptors.
func spawn(ctx context.Context, cfg PoolConfig) (*Monitor, error) {
	conn, theirs, err := wire.Pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		conn.Close()
		return nil, fault.Wrap(fault.Internal, "start", "monitor", err, "")
	}
	defer null.Close()
	stderr := null.Fd()
	if cfg.Debug {
		stderr = os.Stderr.Fd()
	}
	pidfd := -1
	pid, err := syscall.ForkExec(cfg.Binary, []string{"fief-mon"}, &syscall.ProcAttr{
		Dir: "/",
		// One P: a monitor has nothing to do in parallel, and a second costs
		// memory in each of them.
		// A collection at 1 MB instead of 4: what a health check leaves must not
		// add up in each of them.
		Env:   []string{"GOMAXPROCS=1", "GOGC=25", "GODEBUG=containermaxprocs=0", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Files: []uintptr{null.Fd(), null.Fd(), stderr, rawFD(theirs)},
		Sys:   &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd},
	})
	if err != nil {
		conn.Close()
		return nil, fault.Wrap(fault.Internal, "start", cfg.Binary, err, "fief-mon belongs beside fiefd")
	}
	reap(pid, pidfd)
	theirs.Close()
	m, err := greet(ctx, conn)
	if err != nil {
		return nil, err
	}
	if m.Label != cfg.Label || !m.Understands() {
		m.Close()
		return nil, fault.New(fault.Unavailable, "use", cfg.Binary, "it is of another build ("+m.Label+")",
			"install the programs of one build, then restart fiefd")
	}
	m.run()
	return m, nil
}

// reap waits for a monitor in the background, in the poller as long as the
// kernel gives us a pidfd: a blocking wait would hold a thread for each
// container.
func reap(pid, pidfd int) {
	wait := func(options int) bool {
		for {
			got, err := syscall.Wait4(pid, nil, options, nil)
			if err != unix.EINTR {
				return got == pid || err != nil
			}
		}
	}
	if pidfd < 0 || unix.SetNonblock(pidfd, true) != nil {
		go wait(0)
		return
	}
	f := os.NewFile(uintptr(pidfd), "monitor pidfd")
	go func() {
		defer f.Close()
		raw, err := f.SyscallConn()
		if err == nil {
			err = raw.Read(func(uintptr) bool { return wait(unix.WNOHANG) })
		}
		if err != nil {
			wait(0)
		}
	}()
}
