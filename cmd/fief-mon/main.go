// fief-mon owns one running container: it starts the program, holds its
// standard streams, writes its log and its exit code, and outlives the daemon
// that started it. fiefd runs it with a socket on descriptor 3; nothing else is
// configured. As `fief-mon init -- COMMAND…` it is the tiny init of `--init`,
// inside the container.
package main

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"fief/internal/monitor/serve"
	"fief/internal/runtime"
	"fief/internal/runtime/foreign"
	"fief/internal/words/errand"
)

// version is the build label, set by -ldflags "-X main.version=…". fiefd uses only
// monitors of its own build.
var version = "dev"

// control is the descriptor of the daemon's socket.
const control = 3

func main() {
	if len(os.Args) > 1 {
		os.Exit(other(os.Args[1:]))
	}
	if !isSocket(control) {
		os.Stderr.WriteString("fief-mon is started by fiefd; there is nothing to do by hand\n")
		os.Exit(2)
	}
	unix.CloseOnExec(control)
	growTable()
	// When a machine shuts down its init tells every process to end. A monitor
	// that did would leave its container's last output unread.
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	if err := serve.Run(serve.Config{Conn: control, Label: version, Launch: launcher(), Compress: compress}); err != nil {
		os.Stderr.WriteString("fief-mon: " + err.Error() + "\n")
		os.Exit(1)
	}
}

func other(args []string) int {
	switch {
	case args[0] == "init" && len(args) > 2 && args[1] == "--":
		return runInit(args[2:])
	case args[0] == childName && len(args) > 1:
		return runForeground(args[1:])
	case args[0] == foreign.Argument:
		return foreign.Carry(args[1:])
	case args[0] == compressName && len(args) == 1:
		return runCompress()
	case args[0] == "--version" && len(args) == 1:
		os.Stdout.WriteString("fief-mon " + version + "\n")
		return 0
	}
	os.Stderr.WriteString("usage: fief-mon init -- COMMAND [ARG...]\n")
	return 2
}

func isSocket(fd int) bool {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	return err == nil && kind == syscall.SOCK_SEQPACKET
}

// growTable makes room for 256 descriptors while nobody waits: in a process of
// several threads growing the table waits for an RCU grace period, which may
// take 10 ms (kernel fs/file.c, expand_fdtable).
func growTable() {
	if fd, err := unix.FcntlInt(control, unix.F_DUPFD_CLOEXEC, 255); err == nil {
		unix.Close(fd)
	}
}

// launcher starts programs that inherit none of this process's memory. Where
// that cannot be had they are started all the same: it is closed at execve. What
// is no plan is an errand for another runtime.
func launcher() serve.Launch {
	lean, err := runtime.NewLean()
	if err != nil {
		os.Stderr.WriteString("fief-mon: " + err.Error() + "\n")
	}
	others := &foreign.Caller{Binary: "/proc/self/exe"}
	return func(plan []byte, files []int, at serve.Moments) (serve.Process, error) {
		if errand.Is(plan) {
			p, err := others.Start(plan, files, at.Made, at.Meanwhile)
			return serve.Process(p), err
		}
		p, err := lean.StartAt(plan, files, runtime.Callbacks{Prepare: at.Made}, at.Meanwhile)
		return serve.Process{PID: p.PID, PIDFD: p.PIDFD, Console: p.Console}, err
	}
}
