package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// service is a service manager: what it is told, one message an entry. A barrier is
// passed when it has been read.
type service struct {
	name string
	told chan string
}

func newService(t *testing.T, name string) *service {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	s := &service{name, make(chan string, 100)}
	go func() {
		for {
			text, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
			n, noob, _, _, err := conn.ReadMsgUnix(text, oob)
			if err != nil {
				close(s.told)
				return
			}
			if messages, err := unix.ParseSocketControlMessage(oob[:noob]); err == nil {
				for i := range messages {
					fds, _ := unix.ParseUnixRights(&messages[i])
					for _, fd := range fds {
						unix.Close(fd)
					}
				}
			}
			s.told <- string(text[:n])
		}
	}()
	return s
}

// next is the next message, "" when none comes.
func (s *service) next() string {
	select {
	case text := <-s.told:
		return text
	case <-time.After(2 * time.Minute):
		return ""
	}
}

// talker makes the program of a container that says its arguments to its manager,
// and looks whether it could do more.
func (b *bench) talker() {
	b.t.Helper()
	root := filepath.Join(b.bundle, "rootfs")
	source := filepath.Join(b.dir, "talk.go")
	text := `package main

import ("net"; "os"; "time")

func main() {
	to := os.Getenv("NOTIFY_SOCKET")
	for _, said := range os.Args[1:] {
		conn, err := net.Dial("unixgram", to)
		if err != nil { println("dial:", err.Error()); os.Exit(3) }
		if _, err := conn.Write([]byte(said)); err != nil { println("write:", err.Error()); os.Exit(4) }
		conn.Close()
	}
	if os.Remove(to) == nil || os.WriteFile("/run/notify/x", nil, 0o600) == nil { println("the directory can be written to") }
	if len(os.Args) > 2 { time.Sleep(time.Hour) }
}
`
	if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	tool, err := exec.LookPath("go")
	if err != nil {
		b.t.Skip("tool: go")
	}
	build := exec.Command(tool, "build", "-o", root+"/bin/talk", source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.t.Fatalf("%v: %s", err, out)
	}
}

// notified is run with a service manager.
func (b *bench) notified(manager string, args ...string) (out string, pid, code int) {
	b.t.Helper()
	cmd := exec.Command(b.program, append([]string{"--root", filepath.Join(b.dir, "state")}, args...)...)
	file, err := os.CreateTemp(b.dir, "out")
	if err != nil {
		b.t.Fatal(err)
	}
	defer file.Close()
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = b.bundle, append(os.Environ(), "NOTIFY_SOCKET="+manager), file, file
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	cmd.Wait()
	text, _ := os.ReadFile(file.Name())
	return string(text), cmd.Process.Pid, cmd.ProcessState.ExitCode()
}

// TestNotify: a program tells the manager of its runtime that it is ready, by a
// socket of its own; the manager learns which process the service is, and nothing
// else that the program says.
func TestNotify(t *testing.T) {
	b := newBench(t)
	b.talker()
	for _, name := range []string{filepath.Join(b.dir, "manager"), "@fief-notify-" + filepath.Base(filepath.Dir(b.dir))} {
		s := newService(t, name)
		pidFile := filepath.Join(b.dir, "pid")
		b.config(func(s *specs.Spec) {
			s.Process.Args = []string{"talk", "MAINPID=1\nSTATUS=odd", "READY=10", "XREADY=1", "STATUS=well\nREADY=1\n"}
			s.Process.User.UID = 1000
		})
		t.Cleanup(func() { b.run("delete", "--force", "one") })
		if out, _, code := b.notified(name, "create", "--pid-file", pidFile, "one"); code != 0 {
			t.Fatal(out)
		}
		if out, _, code := b.notified(name, "start", "one"); code != 0 || out != "" {
			t.Fatalf("start: %d, %s", code, out)
		}
		pid, _ := os.ReadFile(pidFile)
		if got := s.next(); got != "MAINPID="+string(pid)+"\nREADY=1\n" {
			t.Errorf("the manager was told %q", got)
		}
		if got := s.next(); got != "BARRIER=1" {
			t.Errorf("then %q", got)
		}
		b.ok("delete", "--force", "one")
		// In the foreground the runtime stays the service's process.
		b.config(func(s *specs.Spec) { s.Process.Args = []string{"talk", "READY=1"} })
		if out, _, code := b.notified(name, "run", "two"); code != 0 || out != "" {
			t.Errorf("run: %d, %s", code, out)
		}
		if got := s.next(); got != "READY=1\n" {
			t.Errorf("the manager was told %q", got)
		}
		s.next()
		// One that never says so has ended.
		b.config(func(s *specs.Spec) { s.Process.Args = []string{"sh", "-c", ":"} })
		if out, _, code := b.notified(name, "run", "--detach", "three"); code != 0 {
			t.Errorf("run: %d, %s", code, out)
		}
		b.ok("delete", "--force", "three")
		if len(s.told) != 0 {
			t.Errorf("the manager was told %q", <-s.told)
		}
	}
}

// TestNotifyPlace: the socket's directory is made inside the root file system,
// whatever links are there; a program with a socket of its engine's keeps that, and
// without a manager there is none.
func TestNotifyPlace(t *testing.T) {
	b := newBench(t)
	root := filepath.Join(b.bundle, "rootfs")
	outside := filepath.Join(b.dir, "outside")
	for _, step := range []error{os.Mkdir(outside, 0o777), os.Symlink("/../../../../../../../.."+outside, root+"/run"), syscall.Lchown(root+"/run", 524288, 524288)} {
		if step != nil {
			t.Fatal(step)
		}
	}
	look := []string{"sh", "-c", "echo at $NOTIFY_SOCKET; ls /run/notify/; test -S /run/notify/notify.sock && echo socket"}
	b.config(func(s *specs.Spec) { s.Process.Args = look })
	out, _, code := b.notified(filepath.Join(b.dir, "nobody"), "run", "one")
	if got := strings.Join(strings.Fields(out), " "); code != 0 || got != "at /run/notify/notify.sock notify.sock socket" {
		t.Errorf("exit code %d: %s", code, out)
	}
	if left, _ := os.ReadDir(outside); len(left) != 0 {
		t.Errorf("made outside: %v", left)
	}
	b.config(func(s *specs.Spec) {
		s.Process.Args = []string{"sh", "-c", "echo $NOTIFY_SOCKET; ls /mine"}
		s.Process.Env = append(s.Process.Env, "NOTIFY_SOCKET=/mine/socket")
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mine", Type: "bind", Source: outside, Options: []string{"bind"}})
	})
	if out, _, _ := b.notified(filepath.Join(b.dir, "nobody"), "run", "one"); out != "/mine/socket\n" {
		t.Errorf("%s", out)
	}
	b.sees("none", "echo $NOTIFY_SOCKET; test -e /run/notify/notify.sock || echo none", func(*specs.Spec) {})
}

func TestReady(t *testing.T) {
	for text, want := range map[string]bool{"READY=1": true, "READY=1\n": true, "A=b\nREADY=1\nC=d": true, "": false, "READY=0": false, "READY=1 ": false,
		"X_READY=1": false, "READY=1\x00": false} {
		if ready([]byte(text)) != want {
			t.Errorf("%q", text)
		}
	}
}

// FuzzReady: a notice is ready when one of its lines says so, as a whole.
func FuzzReady(f *testing.F) {
	f.Add([]byte("STATUS=x\nREADY=1\n"))
	f.Fuzz(func(t *testing.T, message []byte) {
		want := bytes.Contains([]byte("\n"+string(message)+"\n"), []byte("\nREADY=1\n"))
		if ready(message) != want {
			t.Errorf("%q: not %v", message, want)
		}
	})
}
