// Package linktest makes network namespaces for tests.
package linktest

import (
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/link"
)

// Space is a network namespace that nobody lives in.
type Space struct{ *os.File }

// Alone skips a test that may not change the network of its own namespace: one
// that is not root's, or of a namespace in which there is more than the kernel
// puts into every new one.
func Alone(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("root: network devices are made by root")
	}
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		left := Left(t)
		if left == "" {
			return
		}
		if time.Now().After(end) { // the devices of a namespace go some time after it
			t.Skip("root: not in a new network namespace (unshare -n): there is " + left)
		}
	}
}

// Left names a device of the namespace that the kernel has not put there, empty
// when there is none.
func Left(t testing.TB) string {
	t.Helper()
	all, err := link.Devices()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if d.Name != "lo" && !slices.Contains(fallbacks, d.Kind) {
			return d.Name
		}
	}
	return ""
}

// fallbacks are the kinds of tunnels that a kernel may put into every namespace
// (net.core.fb_tunnels_only_for_init_net).
var fallbacks = []string{"ipip", "sit", "gre", "gretap", "erspan", "vti", "vti6", "ip6tnl", "ip6gre", "ip6gretap"}

// New makes a namespace with its loopback down. It goes with the test.
func New(t testing.TB) Space {
	t.Helper()
	var s Space
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		s.File = f
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// Here is the caller's namespace.
func Here(t testing.TB) Space {
	t.Helper()
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return Space{f}
}

// Do calls do on a thread in the namespace: sockets made there are its.
func (s Space) Do(do func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(s.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return do()
	})
}

// onThread calls do on a thread that goes back to its namespace afterwards: one
// that ends is no help, as the process's first thread never does.
func onThread(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- err
			return
		}
		defer own.Close()
		err = do()
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// Serve is Echo on a port of IPv4 and, where the namespace has it, of IPv6. Package
// net itself finds out once, wherever it is then, whether there is IPv6.
func (s Space) Serve(t testing.TB, port string) {
	t.Helper()
	s.Echo(t, "tcp4", ":"+port)
	if err := s.Do(func() error { l, err := net.Listen("tcp6", "[::]:0"); closeAll(l); return err }); err == nil {
		s.Echo(t, "tcp6", "[::]:"+port)
	}
}

func closeAll(l net.Listener) {
	if l != nil {
		l.Close()
	}
}

// Echo listens in the namespace and answers every connection with who it comes
// from, then with what it is sent, until the test ends. It returns the port.
func (s Space) Echo(t testing.TB, network, address string) int {
	t.Helper()
	var l net.Listener
	if err := s.Do(func() (err error) { l, err = net.Listen(network, address); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
				io.WriteString(c, host+"\n")
				io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// Ask connects from the namespace and returns the first line it reads: who the
// other side sees.
func (s Space) Ask(address string) (who string, err error) {
	err = s.Do(func() (err error) { who, err = Ask(address); return err })
	return who, err
}

// Ask is Space.Ask from the caller's namespace.
func Ask(address string) (string, error) {
	c, err := (&net.Dialer{Timeout: patience}).Dial("tcp", address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * patience))
	var b []byte
	for one := make([]byte, 1); ; {
		if _, err := c.Read(one); err != nil || one[0] == '\n' {
			return string(b), err
		}
		b = append(b, one[0])
	}
}

// patience is how long a connection that is dropped on the way is waited for: the
// first packet is sent again after a second.
const patience = 2500 * time.Millisecond
