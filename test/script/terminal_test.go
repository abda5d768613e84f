package script

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

	"fief/internal/testenv"
)

// TestTerminals: both clients leave a container by the keys of the command line
// and of docker's configuration, and its programs learn of new sizes.
func TestTerminals(t *testing.T) {
	d := testenv.Start(t)
	d.Busybox(t)
	config := t.TempDir()
	os.WriteFile(filepath.Join(config, "config.json"), []byte(`{"detachKeys":"ctrl-e,e"}`), 0o600)
	d.Must(t, "run", "-dit", "--name", "term", "busybox", "sh")
	clients, names := []string{"fief"}, []string{"term", "fief-run"}
	if _, err := exec.LookPath("docker"); err != nil {
		t.Log("tool: no docker client")
	} else {
		clients, names = append(clients, "docker"), append(names, "docker-run")
	}
	for _, client := range clients {
		for _, c := range []struct {
			args []string
			keys string
		}{
			{[]string{"attach", "term"}, "\x05e"},
			{[]string{"attach", "--detach-keys", "ctrl-a,x", "term"}, "\x01x"},
			{[]string{"exec", "-it", "term", "sh"}, "\x05e"},
			{[]string{"run", "-it", "--name", client + "-run", "busybox", "sh"}, "\x05e"},
		} {
			t.Run(client+" "+strings.Join(c.args, " "), func(t *testing.T) {
				term, wait := onTerminal(t, d, config, client, c.args...)
				unix.IoctlSetWinsize(int(term.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 31, Col: 97})
				for end := time.Now().Add(time.Minute); ; {
					term.WriteString("stty size\n")
					if strings.Contains(readFor(term, 300*time.Millisecond), "31 97") {
						break
					}
					if time.Now().After(end) {
						t.Fatal("the new size is not known inside")
					}
				}
				term.WriteString(c.keys)
				if err := wait(); err != nil && client == "fief" {
					t.Errorf("after the keys: %v", err)
				}
			})
		}
	}
	for _, name := range names {
		if got := d.Must(t, "inspect", "-f", "{{.State.Status}}", name); got != "running" {
			t.Errorf("%s is %s", name, got)
		}
	}
	d.Must(t, append([]string{"rm", "-f"}, names...)...)
}

// onTerminal starts a client on a terminal of its own. wait fails when it has
// not ended in time.
func onTerminal(t *testing.T, d *testenv.Daemon, config, client string, args ...string) (master *os.File, wait func() error) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	cmd := d.Command(t, client, args...)
	cmd.Env = append(cmd.Env, "DOCKER_CONFIG="+config)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return master, func() error {
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		for end := time.Now().Add(time.Minute); ; {
			readFor(master, 50*time.Millisecond)
			select {
			case err := <-done:
				return err
			default:
			}
			if time.Now().After(end) {
				cmd.Process.Kill()
				<-done
				t.Fatalf("%s is still there", exec.Command(client, args...))
			}
		}
	}
}

// readFor is what comes from a terminal within a time.
func readFor(f *os.File, d time.Duration) string {
	var all bytes.Buffer
	buf := make([]byte, 4096)
	for end := time.Now().Add(d); time.Now().Before(end); {
		fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}
		if n, _ := unix.Poll(fds, 20); n != 1 || fds[0].Revents&unix.POLLIN == 0 {
			continue
		}
		n, err := f.Read(buf)
		all.Write(buf[:n])
		if err != nil {
			break
		}
	}
	return all.String()
}
