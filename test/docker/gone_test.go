package docker

import (
	"bufio"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"fief/internal/testenv"
)

// TestAttachedClientGoneBeforeStart: a client that attaches to a created
// container and dies must not end the input of the one that starts it.
func TestAttachedClientGoneBeforeStart(t *testing.T) {
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("tool: no docker client")
	}
	d := testenv.Start(t)
	d.Busybox(t)
	testenv.Output(t, d.Command(t, "docker", "create", "-i", "--name", "early", "busybox", "cat"))
	for range 3 {
		conn, err := net.Dial("unix", strings.TrimPrefix(d.Host, "unix://"))
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(time.Minute))
		io.WriteString(conn, "POST /v1.51/containers/early/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\n"+
			"Host: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n")
		if line, err := bufio.NewReader(conn).ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 101 ") {
			t.Fatalf("%q %v", line, err)
		}
		conn.Close()
	}
	for end := time.Now().Add(time.Minute); connections(t, d) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the door does not see that they are gone")
		}
	}
	cmd := d.Command(t, "docker", "start", "-ai", "early")
	cmd.Stdin = strings.NewReader("data\n")
	timer := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
	defer timer.Stop()
	if out, errs, code := testenv.Output(t, cmd); out != "data\n" || code != 0 {
		t.Errorf("%q %q %d", out, errs, code)
	}
}

// connections counts those to the daemon's socket that it has not closed: the
// others are of the one that listens (proc(5), /proc/net/unix).
func connections(t *testing.T, d *testenv.Daemon) int {
	t.Helper()
	list, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(list), " "+strings.TrimPrefix(d.Host, "unix://")+"\n") - 1
}
