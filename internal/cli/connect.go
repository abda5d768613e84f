package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/cli/fast"
	"fief/internal/door/native/wire"
	"fief/internal/words/fault"
)

// patience is how long fief waits for a daemon that it started, or that is
// being restarted.
const patience = 10 * time.Second

// Connect reaches the daemon at socket. At the default socket it starts one
// when none runs, and says so. Elsewhere it does not: fief cannot know that
// daemon's data root.
func Connect(socket string) (*wire.Conn, error) {
	conn, err := wire.Dial(socket)
	if err == nil || !fault.Is(err, fault.Unavailable) {
		return conn, err
	}
	if socket != fast.DefaultSocket {
		return nil, noDaemon(socket, err)
	}
	binary, err := findDaemon()
	if err != nil {
		return nil, err
	}
	return start(binary, socket)
}

// Reconnect reaches a daemon that went while a call was under way: it gives
// whoever restarts it time to do so before it starts one itself.
func Reconnect(socket string) (*wire.Conn, error) {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		conn, err := wire.Dial(socket)
		if err == nil || !fault.Is(err, fault.Unavailable) {
			return conn, err
		}
		time.Sleep(50 * time.Millisecond)
	}
	return Connect(socket)
}

func noDaemon(socket string, err error) error {
	var f *fault.Error
	if errors.As(err, &f) {
		f.Hint = "is the daemon running? start it: fiefd --host unix://" + filepath.Dir(socket) + "/docker.sock --data-root DIR"
	}
	return err
}

// findDaemon looks for fiefd beside fief, then in PATH.
func findDaemon() (string, error) {
	if self, err := os.Executable(); err == nil {
		if beside := filepath.Join(filepath.Dir(self), "fiefd"); executable(beside) {
			return beside, nil
		}
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if p := filepath.Join(dir, "fiefd"); filepath.IsAbs(p) && executable(p) {
			return p, nil
		}
	}
	return "", fault.New(fault.Unavailable, "start the daemon", "fiefd", "not found beside fief nor in PATH", "")
}

func executable(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && unix.Access(path, unix.X_OK) == nil
}

// start runs the daemon detached from this terminal and waits until it
// accepts calls.
func start(binary, socket string) (*wire.Conn, error) {
	dir := filepath.Dir(socket)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fault.Wrap(fault.Denied, "start the daemon", "", err, "run fief as root")
	}
	log := filepath.Join(dir, "fiefd.log")
	// The name is below a directory that only root writes to.
	out, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fault.Wrap(fault.Denied, "start the daemon", "", err, "run fief as root")
	}
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "start the daemon", "", err, "")
	}
	defer null.Close()
	from, _ := out.Seek(0, io.SeekEnd)
	p, err := os.StartProcess(binary, []string{binary}, &os.ProcAttr{
		Dir: "/", Env: os.Environ(), Files: []*os.File{null, out, out}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "start the daemon", binary, err, "")
	}
	conn, err := await(p, socket)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, "start the daemon", binary, errors.Join(err, tail(log, from)), "see "+log)
	}
	fmt.Fprintf(os.Stderr, "fief: started fiefd (pid %d), log in %s\n", p.Pid, log)
	return conn, nil
}

// await dials until the daemon answers. A daemon that ends may have met one
// that another fief started in the same moment: it gets a second to answer.
func await(p *os.Process, socket string) (*wire.Conn, error) {
	ended := false
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if conn, err := wire.Dial(socket); err == nil {
			return conn, nil
		}
		if ended {
			continue
		}
		var st unix.WaitStatus
		if pid, _ := unix.Wait4(p.Pid, &st, unix.WNOHANG, nil); pid == p.Pid {
			ended, end = true, time.Now().Add(time.Second)
		}
	}
	if ended {
		return nil, errors.New("it ended at once")
	}
	return nil, errors.New("it does not answer after " + strconv.Itoa(int(patience/time.Second)) + " s")
}

// tail is what the daemon wrote to its log from the offset, at most its last
// thousand bytes.
func tail(log string, from int64) error {
	b, err := os.ReadFile(log)
	if err != nil || int64(len(b)) <= from {
		return nil
	}
	text := string(b[max(from, int64(len(b))-1000):])
	return errors.New(strings.TrimSpace(text))
}
