// Command fiefd is fief's daemon: it opens the rooms, makes the engine over
// them, takes up the containers of the daemon before it, and serves the doors.
// It holds no container's output and may be killed at any time.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// version is set by the build.
var version = "dev"

// The exit codes: 1 for a failure, 2 for a command line that cannot be read.
const (
	exitFailed = 1
	exitUsage  = 2
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) > 0 && args[0] == "check" {
		return checkup(args[1:])
	}
	s, err := configure(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return 0
	case err != nil:
		complain(err)
		return exitUsage
	case s.version:
		fmt.Printf("fiefd version %s\n", version)
		return 0
	}
	if os.Geteuid() != 0 {
		complain(fault.New(fault.Denied, "start fiefd", "", "it needs root", "use sudo; a daemon for ordinary users does not exist yet"))
		return exitFailed
	}
	level, _ := s.level()
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})))
	if err := serve(s); err != nil {
		complain(err)
		return exitFailed
	}
	return 0
}

// complain prints an error as an operator wants to read it.
func complain(err error) {
	fmt.Fprintf(os.Stderr, "fiefd: %v\n", err)
	if hint := fault.HintOf(err); hint != "" {
		fmt.Fprintf(os.Stderr, "hint: %s\n", hint)
	}
}

// serve runs the daemon until a signal asks it to end.
func serve(s settings) error {
	syscall.Umask(0o022)
	growDescriptorTable()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	m, err := open(ctx, s)
	if err != nil {
		return err
	}
	defer m.close()
	doors, err := m.listen(s)
	if err != nil {
		return err
	}
	if err := writePID(s.PIDFile); err != nil {
		doors.close()
		return err
	}
	defer removePID(s.PIDFile)
	ready()
	slog.Info("fiefd is ready", "version", version, "data-root", s.DataRoot, "listening", doors.names())
	return doors.serve(ctx)
}

// growDescriptorTable makes the kernel's table of this process as large as it
// will ever need. Growing it later, in a multi-threaded process, waits for an
// RCU grace period of milliseconds (fs/file.c, expand_fdtable).
func growDescriptorTable() {
	const high = 4095
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return
	}
	at := min(high, int(limit.Cur)-1)
	if fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, at); err == nil {
		unix.Close(fd)
	}
}

func writePID(path string) error {
	if path == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fault.Wrap(fault.Invalid, "write", path, err, "choose another --pidfile")
	}
	err := os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644)
	return fault.Wrap(fault.Invalid, "write", path, err, "choose another --pidfile")
}

func removePID(path string) {
	if path != "" {
		os.Remove(path)
	}
}

// ready tells systemd that the doors are open; sd_notify(3).
func ready() {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if path[0] == '@' { // a name in the abstract namespace; unix(7)
		path = "\x00" + path[1:]
	}
	unix.Sendto(fd, []byte("READY=1"), 0, &unix.SockaddrUnix{Name: path})
}
