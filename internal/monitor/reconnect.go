package monitor

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/monitor/wire"
	"fief/internal/words/fault"
)

// Reconnect finds the monitor of the container whose run directory is dir,
// after a restart of the daemon: Knock and Greet in one.
func Reconnect(ctx context.Context, dir string) (*Monitor, error) {
	k, err := Knock(dir)
	if err != nil {
		return nil, err
	}
	return k.Greet(ctx)
}

// Knocked is a connection with a monitor that has said nothing yet. The kernel
// makes it as long as the monitor's process listens, however long that process
// takes to be scheduled: that it could be made says that the container has not
// been wound up.
type Knocked struct {
	dir string
	fd  int
}

// Knock connects with the monitor of the container whose run directory is dir.
// NotFound: none listens there; then ReadExit says how the container ended, if it
// did so with its monitor alive. Greet or Drop has to follow.
func Knock(dir string) (*Knocked, error) {
	fd, err := dial(dir)
	switch err {
	case nil:
		return &Knocked{dir, fd}, nil
	case unix.ENOENT, unix.ECONNREFUSED, unix.ENOTDIR:
		return nil, fault.Wrap(fault.NotFound, "find monitor in", dir, err, "")
	}
	return nil, fault.Wrap(fault.Unavailable, "connect to monitor in", dir, err, "")
}

// Drop closes a connection that is not greeted.
func (k *Knocked) Drop() { unix.Close(k.fd) }

// Greet waits for the monitor to answer, until ctx's deadline or ten seconds.
// Exits it could not report meanwhile come through Exits. Busy: another daemon is
// connected, and still was after a while: a monitor hears of the end of a killed
// daemon a moment after the next one can ask.
func (k *Knocked) Greet(ctx context.Context) (*Monitor, error) {
	for until := time.Now().Add(handover); ; time.Sleep(retry) {
		m, err := k.greet(ctx)
		if !fault.Is(err, fault.Busy) || time.Now().After(until) {
			return m, err
		}
		if k, err = Knock(k.dir); err != nil {
			return nil, err
		}
	}
}

// A busy monitor is asked again every retry for as long as handover.
const (
	handover = 3 * time.Second
	retry    = 5 * time.Millisecond
)

func (k *Knocked) greet(ctx context.Context) (*Monitor, error) {
	conn, err := wire.NewConn(k.fd)
	if err != nil {
		return nil, err
	}
	m, err := greet(ctx, conn)
	if err != nil {
		return nil, err
	}
	m.run()
	return m, nil
}

// dial names the socket through a descriptor of its directory, because
// sun_path has 108 bytes, unix(7).
func dial(dir string) (int, error) {
	parent, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	name := "/proc/self/fd/" + strconv.Itoa(parent) + "/" + wire.SocketName
	if err := unix.Connect(sock, &unix.SockaddrUnix{Name: name}); err != nil {
		unix.Close(sock)
		return -1, err
	}
	return sock, nil
}

// ReadExit returns what a monitor that is gone left behind in dir: the end of
// the container's process 1. False: it left nothing, because it was killed
// itself or still runs.
func ReadExit(dir string) (Exit, bool) {
	content, err := os.ReadFile(filepath.Join(dir, wire.ExitFile))
	if err != nil {
		return Exit{}, false
	}
	code, signal, at, err := wire.ParseExit(content)
	if err != nil {
		return Exit{}, false
	}
	return Exit{Code: code, Signal: signal, At: at}, true
}
