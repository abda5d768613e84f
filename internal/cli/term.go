package cli

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"fief/internal/words/fault"
)

// terminal is the client's terminal while a process in a container uses it.
type terminal struct {
	in    *os.File
	old   *term.State
	winch chan os.Signal
	sizes chan [2]uint16
}

// checkTTY refuses a terminal for a process whose input is none, in docker's
// words.
func (c *Client) checkTTY(tty, stdin bool) error {
	if tty && stdin && !term.IsTerminal(int(c.Files[0].Fd())) {
		f := fault.Say(fault.Invalid, "the input device is not a TTY")
		f.ExitCode = 1
		return f
	}
	return nil
}

// consoleSize is the size of the client's terminal in rows and columns; zeroes
// when it has none.
func (c *Client) consoleSize() [2]uint16 {
	for _, f := range []*os.File{c.Files[1], c.Files[0]} {
		if cols, rows, err := term.GetSize(int(f.Fd())); err == nil {
			return [2]uint16{uint16(rows), uint16(cols)}
		}
	}
	return [2]uint16{}
}

// takeTerminal passes the client's terminal on: keys are no longer line
// edited, echoed or turned into signals. Restore must be called on every way
// out.
func (c *Client) takeTerminal(stdin bool) (*terminal, error) {
	t := &terminal{in: c.Files[0], sizes: make(chan [2]uint16, 1), winch: make(chan os.Signal, 1)}
	if stdin && term.IsTerminal(int(t.in.Fd())) {
		old, err := term.MakeRaw(int(t.in.Fd()))
		if err != nil {
			return nil, fault.Wrap(fault.Internal, "set raw", "the terminal", err, "")
		}
		t.old = old
	}
	signal.Notify(t.winch, unix.SIGWINCH)
	go func() {
		for range t.winch {
			t.sizes <- c.consoleSize()
		}
	}()
	return t, nil
}

// restore gives the terminal back as it was.
func (t *terminal) restore() {
	signal.Stop(t.winch)
	close(t.winch)
	if t.old != nil {
		_ = term.Restore(int(t.in.Fd()), t.old)
	}
}
