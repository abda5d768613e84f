package main

import (
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// childName is the first argument of the process between init and the command
// when there is a terminal to hand over.
const childName = "init-foreground"

// runInit starts the command, passes signals on to it, reaps whatever is
// orphaned, and ends as the command ends. It is what docker run --init has.
func runInit(command []string) int {
	path, code := lookUp(command[0])
	if code != 0 {
		return code
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals) // before the fork: SIGCHLD must not be missed
	argv, exe := command, path
	if hasTerminal() {
		// Only a process may move itself to the foreground without being
		// stopped by SIGTTOU, so one more step lies between us and the command.
		exe, argv = "/proc/self/exe", append([]string{"fief-mon", childName, path}, command...)
	}
	pid, err := syscall.ForkExec(exe, argv, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2},
		// A group of its own: what the terminal sends to the foreground group
		// reaches the command once, from the terminal, and not again from us.
		Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return cannotExec(command[0], err)
	}
	for sig := range signals {
		switch sig {
		case syscall.SIGCHLD:
			if code, ended := reapAll(pid); ended {
				return code
			}
		case syscall.SIGURG, syscall.SIGPIPE, syscall.SIGTTIN, syscall.SIGTTOU:
			// SIGURG is how the Go runtime preempts itself; the others are
			// about our own use of a pipe or terminal.
		default:
			syscall.Kill(pid, sig.(syscall.Signal))
		}
	}
	return 0
}

// reapAll waits for all that have ended and returns the exit code of the
// command when it is among them.
func reapAll(command int) (code int, ended bool) {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return code, ended
		}
		if pid != command {
			continue
		}
		code, ended = ws.ExitStatus(), true
		if ws.Signaled() {
			code = 128 + int(ws.Signal())
		}
	}
}

// hasTerminal reports whether stdin is our controlling terminal.
func hasTerminal() bool {
	_, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	return err == nil
}

// runForeground makes this process's group the foreground one and becomes the
// command. args are its path and its argument list.
func runForeground(args []string) int {
	signal.Ignore(syscall.SIGTTOU)
	unix.IoctlSetPointerInt(0, unix.TIOCSPGRP, os.Getpid())
	signal.Reset(syscall.SIGTTOU)
	if len(args) < 2 {
		return 2
	}
	return cannotExec(args[1], syscall.Exec(args[0], args[1:], os.Environ()))
}

// lookUp finds a command in PATH as execvp(3) does; on failure code is the exit
// code and the reason has been printed.
func lookUp(name string) (path string, code int) {
	if strings.Contains(name, "/") {
		return name, 0
	}
	denied := false
	for dir := range strings.SplitSeq(os.Getenv("PATH"), ":") {
		if dir == "" {
			dir = "."
		}
		path := dir + "/" + name
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		if unix.Access(path, unix.X_OK) == nil {
			return path, 0
		}
		denied = true
	}
	if denied {
		return "", cannotExec(name, syscall.EACCES)
	}
	os.Stderr.WriteString("exec: \"" + name + "\": executable file not found in $PATH\n")
	return "", 127
}

// cannotExec prints why a command cannot be run and returns its exit code.
func cannotExec(name string, err error) int {
	os.Stderr.WriteString("exec: \"" + name + "\": " + err.Error() + "\n")
	if err == syscall.ENOENT {
		return 127
	}
	return 126
}
