package main

import (
	"flag"
	"io"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"fief/internal/runtime"
	"fief/internal/words/fault"
)

func runCommand(a *app, set *flag.FlagSet) func([]string) error {
	c := newCreation(a, set)
	detach := set.Bool("detach", false, "do not wait for its end")
	set.BoolVar(detach, "d", false, "short for --detach")
	keep := set.Bool("keep", false, "do not delete it at its end")
	return func(args []string) error {
		id, err := one(args)
		if err != nil {
			return err
		}
		if !*detach {
			c.front = newForeground()
		}
		box, proc, err := c.create(id)
		if err != nil {
			return err
		}
		var notices *proxy
		var told chan struct{}
		err = finish(proc, c.console, c.front, func() (err error) {
			if notices, err = box.start(); err == nil && !*detach && notices != nil {
				told = make(chan struct{})
				go func() {
					box.announce(notices, 0) // this process stays the service's
					close(told)
				}()
			}
			return err
		})
		if _, ended := err.(exitStatus); ended && told != nil {
			<-told
		}
		if err != nil {
			if _, ended := err.(exitStatus); !ended {
				box.destroy()
				return err
			}
		}
		if *detach && err == nil {
			box.announce(notices, box.PID)
		}
		if *detach || *keep {
			return err
		}
		box.end(box.config)
		return err
	}
}

// finish hands the terminal on, opens the gate and, with a foreground, waits for
// the process's end, which it returns as an exitStatus.
func finish(proc runtime.Process, console string, front *foreground, open func() error) error {
	if proc.Console >= 0 && (console != "" || front == nil) {
		if err := sendConsole(console, proc.Console); err != nil {
			return err
		}
		proc.Console = -1
	}
	defer front.stop()
	if proc.Console >= 0 {
		defer joinTerminal(proc.Console)()
	}
	if err := open(); err != nil {
		return err
	}
	if front == nil {
		return nil
	}
	go forward(front.signals, proc)
	return exitStatus(reap(proc.PID))
}

// foreground is what a command has that stays with a container's process: the
// signals that are meant for it. A nil one is of a command that goes on.
type foreground struct {
	signals chan os.Signal
	late    *time.Timer
}

func newForeground() *foreground { return &foreground{signals: make(chan os.Signal, 64)} }

// catch has signals wait for the process: those that people and managers send at
// once, the others when it has lived for a while, as catching all sixty costs the
// Go runtime 3 ms. The first one alone makes it start two threads: catch is
// called while the process has work of its own.
func (f *foreground) catch(window bool) {
	if f == nil {
		return
	}
	signal.Notify(f.signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	if window {
		signal.Notify(f.signals, unix.SIGWINCH)
	}
	f.late = time.AfterFunc(30*time.Millisecond, func() { signal.Notify(f.signals) })
}

// stop gives up on signals that are not caught yet.
func (f *foreground) stop() {
	if f != nil && f.late != nil {
		f.late.Stop()
	}
}

// forward passes signals on to the container. A new window size goes to its
// terminal.
func forward(signals <-chan os.Signal, proc runtime.Process) {
	for s := range signals {
		sig, ok := s.(unix.Signal)
		switch {
		case !ok || sig == unix.SIGCHLD || sig == unix.SIGURG || sig == unix.SIGPIPE:
		case sig == unix.SIGWINCH && proc.Console >= 0:
			copySize(proc.Console)
		default:
			unix.Kill(proc.PID, sig)
		}
	}
}

// reap waits for a child of this process and returns its exit code, 128 + n
// after signal n.
func reap(pid int) int {
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &status, unix.WALL, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 125
		}
		if status.Signaled() {
			return 128 + int(status.Signal())
		}
		return status.ExitStatus()
	}
}

// joinTerminal connects this process's terminal with the container's; the
// result ends that.
func joinTerminal(console int) func() {
	master := os.NewFile(uintptr(console), "console")
	var restore func()
	if state, err := term.MakeRaw(0); err == nil {
		restore = func() { term.Restore(0, state) }
	}
	copySize(console)
	done := make(chan struct{})
	go io.Copy(master, os.Stdin)
	go func() {
		io.Copy(os.Stdout, master) // ends with EIO when the container has closed its end
		close(done)
	}()
	return func() {
		<-done
		if restore != nil {
			restore()
		}
	}
}

func copySize(console int) {
	if size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
		unix.IoctlSetWinsize(console, unix.TIOCSWINSZ, size)
	}
}

// sendConsole sends the terminal's master over the console socket and closes
// it (runc's docs/terminals.md).
func sendConsole(socket string, console int) error {
	defer unix.Close(console)
	if socket == "" {
		return fault.New(fault.Invalid, "hand over terminal", "", "no --console-socket given", "a process with a terminal needs one, unless it runs in the foreground")
	}
	unix.SetNonblock(console, false)
	return fault.Wrap(fault.Unavailable, "send terminal to", socket, sendFD(socket, []byte("/dev/ptmx"), console), "")
}
