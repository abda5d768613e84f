package cli_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/door/native/nativetest"
)

// TestTerminal runs fief on a terminal: it is raw while the container has it,
// sizes are passed on, and it is as before afterwards.
func TestTerminal(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("root: the native socket answers root only")
	}
	dir := t.TempDir()
	d := &daemon{socket: filepath.Join(dir, "native.sock"), engine: nativetest.New()}
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	defer d.engine.Close()
	defer d.end()
	master, slave := terminal(t)
	size := unix.Winsize{Row: 33, Col: 99}
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &size); err != nil {
		t.Fatal(err)
	}
	before := modes(t, slave)
	cmd := fiefCommand(t, dir, "run", "-it", "--network", "none", "busybox", "sh", "-c", "echo ready; read x; echo got $x; exit 3")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := readUntil(t, master, "ready")
	if modes(t, slave).Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) != 0 {
		t.Error("the terminal is not raw")
	}
	size.Row = 44
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &size); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the new size", func() bool {
		s := d.engine.Sizes()
		return len(s) > 0 && s[len(s)-1] == [2]uint16{44, 99}
	})
	if _, err := master.WriteString("word\n"); err != nil {
		t.Fatal(err)
	}
	out += readUntil(t, master, "got word")
	err := cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 3 {
		t.Errorf("exit status %d, %v; output %q", code, err, out)
	}
	if after := modes(t, slave); after.Lflag != before.Lflag || after.Iflag != before.Iflag || after.Oflag != before.Oflag {
		t.Error("the terminal is not as before")
	}
	if asked := d.engine.Asked(); len(asked) != 1 || asked[0].ConsoleSize != [2]uint16{33, 99} || !asked[0].TTY {
		t.Errorf("asked for %+v", asked)
	}
}

// fiefCommand is this test binary as fief, which testscript.Main has put into
// PATH.
func fiefCommand(t *testing.T, dir string, words ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath("fief")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, words...)
	cmd.Env = append(os.Environ(), "FIEF_HOST=unix://"+dir+"/docker.sock")
	return cmd
}

// terminal makes a pseudo-terminal.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

func modes(t *testing.T, f *os.File) *unix.Termios {
	t.Helper()
	m, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// readUntil reads from a terminal until the text has come, at most a minute.
func readUntil(t *testing.T, f *os.File, text string) string {
	t.Helper()
	var all bytes.Buffer
	buf := make([]byte, 4096)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}
		if n, _ := unix.Poll(fds, 100); n != 1 {
			continue
		}
		n, err := f.Read(buf)
		all.Write(buf[:n])
		if strings.Contains(all.String(), text) {
			return all.String()
		}
		if err != nil {
			break
		}
	}
	t.Fatalf("%q did not come: %q", text, all.String())
	return ""
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
