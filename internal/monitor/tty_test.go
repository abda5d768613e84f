package monitor

import (
	"bufio"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"fief/internal/monitor/logread"
	"fief/internal/monitor/wire"
	"fief/internal/words/ask"
	"fief/internal/words/record"
)

func TestTerminal(t *testing.T) {
	inR, inW := pipe(t)
	outR, outW := pipe(t)
	ours, alive := socket(t)
	b := run(t, take(t), func(r *Run) {
		r.OpenStdin, r.Console = true, [2]uint16{33, 99}
		r.Attach = []Attach{{Stdin: inR, Stdout: outW, Alive: alive}}
	}, "tty", shell("sleep 0.2; trap 'stty size' WINCH; stty size; tty; read x; stty size; exit 5")...)
	outW.Close()
	alive.Close()
	out := bufio.NewReader(outR)
	if size, err := out.ReadString('\n'); size != "33 99\r\n" {
		t.Errorf("initial size %q, %v", size, err)
	}
	if name, _ := out.ReadString('\n'); !strings.HasPrefix(name, "/dev/pts/") {
		t.Errorf("terminal %q", name)
	}
	if err := b.Resize(ctx(t), "", 10, 20); err != nil {
		t.Fatal(err)
	}
	inW.WriteString("x\r")
	rest, _ := io.ReadAll(out)
	if !strings.Contains(string(rest), "10 20\r\n") {
		t.Errorf("after resize %q", rest)
	}
	if e := exit(t, b.Monitor); e.Code != 5 {
		t.Errorf("%+v", e)
	}
	if why := parted(t, ours); why != string(wire.PartEnded) {
		t.Errorf("parted with %q", why)
	}
	if log, _ := os.ReadFile(b.log); !strings.Contains(string(log), `"log":"33 99\r\n","stream":"stdout"`) {
		t.Errorf("log %s", log)
	}
}

func TestDetachKeys(t *testing.T) {
	for _, c := range []struct {
		name, options, typed, passed string
		keys                         []byte
		line                         int // of the log that has the answer
	}{
		{"default with a terminal", "tty", "ab\x10c\x10\x11never", "ab\x10c", nil, 1},
		{"own keys, no terminal", "", "aXbXYnever", "aXb", []byte("XY"), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			inR, inW := pipe(t)
			outR, outW := pipe(t)
			ours, alive := socket(t)
			answer := "head -c " + strconv.Itoa(len(c.passed)) + "; echo; exec sleep 100"
			command := shell(answer)
			if c.options == "tty" {
				command = shell("stty raw -echo; echo ready; " + answer)
			}
			b := run(t, take(t), func(r *Run) {
				r.OpenStdin, r.StdinOnce = true, true
				r.Attach = []Attach{{Stdin: inR, Stdout: outW, Alive: alive, DetachKeys: c.keys}}
			}, c.options, command...)
			outW.Close()
			alive.Close()
			out := bufio.NewReader(outR)
			if c.options == "tty" {
				out.ReadString('\n')
			}
			for i := range len(c.typed) { // one key at a time
				inW.WriteString(c.typed[i : i+1])
				time.Sleep(time.Millisecond)
			}
			if why := parted(t, ours); why != string(wire.PartDetached) {
				t.Errorf("parted with %q", why)
			}
			if st, err := b.State(ctx(t)); err != nil || !st.Running {
				t.Fatalf("the container ended with its client: %+v, %v", st, err)
			}
			// The client may have left before the answer came: the log has it.
			if got := logged(t, b.log, c.line); got != c.passed+"\n" {
				t.Errorf("passed on %q, want %q", got, c.passed)
			}
		})
	}
}

// TestTerminalReopened: a program may close its terminal and open it again, as
// init systems do with /dev/console.
func TestTerminalReopened(t *testing.T) {
	b := run(t, take(t), nil, "tty", shell(`t=$(tty); echo one; exec 0<&- 1>&- 2>&-; sleep 0.1; echo two >$t; sleep 0.1; echo three >$t`)...)
	exit(t, b.Monitor)
	log, _ := os.ReadFile(b.log)
	for _, w := range []string{"one", "two", "three"} {
		if !strings.Contains(string(log), w) {
			t.Errorf("%s is missing: %s", w, log)
		}
	}
}

// TestTerminalTail: what a program prints last is not lost, however it ends.
func TestTerminalTail(t *testing.T) {
	for range 5 {
		b := run(t, take(t), nil, "tty", "/usr/bin/seq", "1", "100000")
		exit(t, b.Monitor)
		log, _ := os.ReadFile(b.log)
		if n := strings.Count(string(log), "\n"); n != 100000 {
			t.Fatalf("%d of 100000 lines", n)
		}
	}
}

// logged waits for the nth line of a log.
func logged(t *testing.T, path string, n int) string {
	t.Helper()
	enough := errors.New("enough")
	line := ""
	q := ask.Logs{Stdout: true, Follow: true, Tail: -1}
	err := logread.Read(ctx(t), path, q, nil, func(l record.LogLine) error {
		line = string(l.Text)
		if n--; n < 0 {
			return enough
		}
		return nil
	})
	if err != enough {
		t.Fatal(err)
	}
	return line
}

// texts returns what was logged.
func texts(t *testing.T, path string) []string {
	t.Helper()
	var out []string
	err := logread.Read(t.Context(), path, ask.Logs{Stdout: true, Stderr: true, Tail: -1}, nil, func(l record.LogLine) error {
		out = append(out, string(l.Text))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
