package registry

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"fief/internal/image/registrytest"

	"github.com/opencontainers/go-digest"
)

// lines is the output of a client that runs.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) wait(t *testing.T, text string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		l.mu.Lock()
		found := strings.Contains(l.buf.String(), text)
		l.mu.Unlock()
		if found {
			return
		}
	}
	t.Fatalf("no %q in\n%s", text, l.buf.String())
}

// Of two clients that pull images with a common layer either may be killed: the
// other one gets its image, and the layer is sent once.
func TestKilledClient(t *testing.T) {
	s := start(t)
	for _, victim := range []int{0, 1} {
		big := registrytest.Layer("big", strings.Repeat(string(rune('0'+victim))+"23456789", 1<<18))
		images := []registrytest.Image{registrytest.Plain(big, registrytest.Layer("1", "1")), registrytest.Plain(registrytest.Layer("2", "2"), big)}
		more := make(chan struct{})
		goOn := sync.OnceFunc(func() { close(more) })
		g := &registrytest.Registry{Tamper: func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			if len(body) != len(big) {
				return false
			}
			w.Write(body[:len(body)/2])
			w.(http.Flusher).Flush()
			select {
			case <-more:
				w.Write(body[len(body)/2:])
			case <-r.Context().Done():
			}
			return true
		}}
		srv := httptest.NewServer(g)
		defer srv.Close()
		defer goOn()
		host := strings.TrimPrefix(srv.URL, "http://")
		var clients [2]*exec.Cmd
		for i, name := range []string{"one", "two"} {
			g.Push(name, "latest", images[i])
			out := &lines{}
			clients[i] = s.Command(t, "fief", "pull", host+"/"+name)
			clients[i].Stdout, clients[i].Stderr = out, out
			if err := clients[i].Start(); err != nil {
				t.Fatal(err)
			}
			out.wait(t, digest.FromBytes(big).Encoded()[:12]+": Downloading")
		}
		clients[victim].Process.Kill()
		clients[victim].Wait()
		// The daemon notices: it closes the connection (proc(5), /proc/net/unix),
		// when the pull has been given up.
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			list, err := os.ReadFile("/proc/net/unix")
			if err != nil {
				t.Fatal(err)
			}
			const listens, other = 1, 1
			if strings.Count(string(list), s.Dir+"/run/native.sock\n") <= listens+other {
				break
			}
		}
		goOn()
		if err := clients[1-victim].Wait(); err != nil {
			t.Errorf("victim %d: the other client: %v\n%s", victim, err, s.Log())
		}
		if n := g.Asked(digest.FromBytes(big).String()); n != 1 {
			t.Errorf("victim %d: the layer was asked for %d times", victim, n)
		}
		left := s.Must(t, "images", "-q", host+"/"+[]string{"one", "two"}[victim])
		if left != "" {
			t.Errorf("the killed pull left %s", left)
		}
	}
}
