package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

const (
	// answerMax bounds what a plugin may answer, complaintMax what it may complain.
	answerMax    = 1 << 20
	complaintMax = 4 << 10
	// grace is how long the streams of a plugin that has ended, or was killed, may
	// be held open by what it has started.
	grace = time.Second
)

// runner executes plugins for libcni. Each is the leader of a process group of its
// own, which is killed with it when its time is over: plugins are often shell
// scripts, or start iptables.
type runner struct{ version.PluginDecoder }

// FindInPath finds a plugin.
func (*runner) FindInPath(plugin string, paths []string) (string, error) {
	return invoke.FindInPath(plugin, paths)
}

var errUnreadable = errors.New("a plugin's answer cannot be read")

// safely calls what reads the answers of plugins: libcni 1.3 takes for granted that
// lists in them have no null, and a daemon must not end by one.
func safely(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errUnreadable, p)
		}
	}()
	return do()
}

// notPassed are what the daemon's service manager told the daemon.
var notPassed = []string{"NOTIFY_SOCKET=", "LISTEN_FDS=", "LISTEN_PID=", "LISTEN_FDNAMES=", "WATCHDOG_USEC=", "WATCHDOG_PID=", "INVOCATION_ID=", "JOURNAL_STREAM="}

// ExecPlugin runs a plugin until it ends or the context does. The error is what
// the plugin says, as a *types.Error, or why it could say nothing.
func (*runner) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	var out, complaint limited
	out.max, complaint.max = answerMax, complaintMax
	c := exec.CommandContext(ctx, path)
	c.Dir = "/"
	for _, e := range environ {
		passed := true
		for _, no := range notPassed {
			passed = passed && !strings.HasPrefix(e, no)
		}
		if passed {
			c.Env = append(c.Env, e)
		}
	}
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(stdin), &out, &complaint
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = grace
	err := c.Run()
	if ctx.Err() != nil {
		return nil, errors.New("it did not end in time, and was killed")
	}
	if errors.Is(err, exec.ErrWaitDelay) { // it has ended well, a child of its has not
		syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		err = nil
	}
	if err == nil && out.cut {
		err = errors.New("its answer is longer than " + strconv.Itoa(answerMax) + " bytes")
	}
	if err == nil {
		return out.Bytes(), nil
	}
	return nil, reason(err, out.Bytes(), complaint.String())
}

// reason is why a plugin failed: what it answers (CNI specification, "Error"),
// else what it wrote to its standard error.
func reason(err error, answer []byte, complaint string) error {
	var e types.Error
	if json.Unmarshal(answer, &e) == nil && (e.Msg != "" || e.Details != "") {
		return &e
	}
	if words := strings.TrimSpace(complaint); words != "" {
		return errors.New(err.Error() + ": " + printable(words))
	}
	if words := strings.TrimSpace(string(answer)); words != "" {
		return errors.New(err.Error() + ", and an answer that is no error of CNI: " + printable(words))
	}
	return errors.New(err.Error() + ", without a word")
}

// printable keeps the beginning of what a plugin says, without control characters.
func printable(s string) string {
	const most = 300
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return ' '
		}
		return r
	}, s)
}

// limited keeps the first bytes that are written to it.
type limited struct {
	bytes.Buffer
	max int
	cut bool
}

func (l *limited) Write(p []byte) (int, error) {
	if room := l.max - l.Len(); len(p) > room {
		l.cut = true
		l.Buffer.Write(p[:max(room, 0)])
		return len(p), nil
	}
	return l.Buffer.Write(p)
}
