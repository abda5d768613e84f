package native_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/door/native"
	"fief/internal/door/native/nativetest"
	"fief/internal/door/native/wire"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// serve serves a test engine until the test ends, and returns the socket's
// path.
func serve(t *testing.T) (string, *nativetest.Engine) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("root: the native socket answers root only")
	}
	path := filepath.Join(t.TempDir(), native.SocketName)
	l, err := native.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	e := nativetest.New()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- native.Serve(ctx, l, e) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		e.Close()
	})
	return path, e
}

func dial(t *testing.T, path string) *wire.Conn {
	t.Helper()
	c, err := wire.Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// launch sends a command line with the null device as stdio; the returned
// descriptor is the client's end of the liveness socket.
func launch(t *testing.T, c *wire.Conn, words ...string) int {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	ours, theirs, err := wire.Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(ours) })
	defer unix.Close(theirs)
	fd := int(null.Fd())
	if err := c.Ask(wire.RunArgs, wire.Launch{Dir: "/", Args: words}.Encode(nil), fd, fd, fd, theirs); err != nil {
		t.Fatal(err)
	}
	return ours
}

// until reads messages up to the wanted kind.
func until(t *testing.T, c *wire.Conn, want wire.Kind) wire.Message {
	t.Helper()
	for {
		m, err := c.Next()
		if err != nil {
			t.Fatalf("no message of kind %d: %v", want, err)
		}
		if m.Kind == want {
			return m
		}
	}
}

func TestSocketIsRootsAlone(t *testing.T) {
	path, _ := serve(t)
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", st.Mode(), err)
	}
	// Even under a mode that lets everyone connect, SO_PEERCRED decides.
	for _, p := range []string{filepath.Dir(path), filepath.Dir(filepath.Dir(path)), path} {
		if err := os.Chmod(p, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	refused := make(chan error, 1)
	asNobody(t, func() {
		c, err := wire.Dial(path)
		if err != nil {
			refused <- err
			return
		}
		defer c.Close()
		refused <- c.Call(wire.List, struct{}{}, nil, nil)
	})
	if err := <-refused; !fault.Is(err, fault.Denied) {
		t.Errorf("nobody was answered: %v", err)
	}
}

// TestSignalsBeforeTheStart: what comes before the process runs is delivered
// then.
func TestSignalsBeforeTheStart(t *testing.T) {
	path, e := serve(t)
	c := dial(t, path)
	launch(t, c, "busybox", "sleep", "100")
	for _, m := range []struct {
		kind wire.Kind
		body []byte
	}{{wire.Resize, wire.EncodeSize(30, 90)}, {wire.Signal, []byte{byte(syscall.SIGTERM)}}} {
		if err := c.Tell(m.kind, m.body); err != nil {
			t.Fatal(err)
		}
	}
	exit, err := wire.DecodeExit(until(t, c, wire.Exit).Body)
	if err != nil || exit.Code != 128+15 {
		t.Errorf("%+v, %v", exit, err)
	}
	if s := e.Sizes(); len(s) != 1 || s[0] != [2]uint16{30, 90} {
		t.Errorf("sizes %v", s)
	}
}

// The daemon keeps no copy of the client's descriptors once the process runs:
// the client sees the end of its liveness socket when the streams are done.
func TestStreamsEndIsSeen(t *testing.T) {
	path, _ := serve(t)
	c := dial(t, path)
	alive := launch(t, c, "busybox", "true")
	until(t, c, wire.Exit)
	fds := []unix.PollFd{{Fd: int32(alive), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 5000); n != 1 || err != nil {
		t.Errorf("liveness socket stays open: %d, %v", n, err)
	}
}

// A daemon that stops says nothing to a client that waits: the client asks the
// next one.
func TestStopIsSilent(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("root: the native socket answers root only")
	}
	path := filepath.Join(t.TempDir(), native.SocketName)
	l, err := native.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	e := nativetest.New()
	defer e.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- native.Serve(ctx, l, e) }()
	c := dial(t, path)
	launch(t, c, "busybox", "sleep", "100")
	until(t, c, wire.Started)
	cancel()
	if m, err := c.Next(); err == nil {
		t.Errorf("message of kind %d", m.Kind)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// One connection takes one call after another, and nonsense ends it.
func TestCallsFollowEachOther(t *testing.T) {
	path, _ := serve(t)
	c := dial(t, path)
	for range 3 {
		var all []record.Image
		if err := c.Call(wire.Images, struct{}{}, &all, nil); err != nil || len(all) != 1 {
			t.Fatalf("%v, %v", all, err)
		}
	}
	if err := c.Call(wire.Verb(250), struct{}{}, nil, nil); !fault.Is(err, fault.Unsupported) {
		t.Errorf("unknown verb: %v", err)
	}
	if err := c.Call(wire.Inspect, []int{1}, nil, nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("wrong body: %v", err)
	}
	if err := c.Call(wire.Load, struct{}{}, nil, nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("load without a file: %v", err)
	}
	raw := dial(t, path)
	if _, err := unix.Write(raw.FD(), []byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after nonsense: %v", err)
	}
}

// A client of another protocol version is told so.
func TestVersionIsChecked(t *testing.T) {
	path, _ := serve(t)
	c := dial(t, path)
	body, err := json.Marshal(struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	packet := append([]byte{byte(wire.Request), 0, wire.Version + 1, byte(wire.List)}, body...)
	if _, err := unix.Write(c.FD(), packet); err != nil {
		t.Fatal(err)
	}
	m := until(t, c, wire.Failure)
	if err := wire.DecodeFailure(m.Body); !fault.Is(err, fault.Unsupported) {
		t.Errorf("%v", err)
	}
}

// What root says about whose behalf he acts on is believed, of every verb that
// makes containers; the daemon adds nothing of its own to a root's.
func TestCallerGoesAlong(t *testing.T) {
	path, e := serve(t)
	c := dial(t, path)
	for _, caller := range []*ask.Caller{{UID: 1000, GID: 100}, {UID: 0, GID: 0}, nil} {
		body := wire.PackContainer(ask.Container{Image: "busybox", Cmd: []string{"true"}, Userns: ask.UsernsKeepID{}, Caller: caller})
		var made wire.CreatedReply
		if err := c.Call(wire.Create, body, &made, nil); err != nil {
			t.Fatal(err)
		}
		if err := c.Call(wire.Run, wire.RunCall{Container: body}, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	launch(t, c, "--userns", "keep-id", "busybox", "true")
	until(t, c, wire.Exit)
	asked := e.Asked()
	if len(asked) != 7 {
		t.Fatalf("%d containers", len(asked))
	}
	for i, a := range asked {
		if by := a.Caller; (by != nil) != (i < 2) || by != nil && *by != (ask.Caller{UID: 1000, GID: 100}) {
			t.Errorf("container %d: caller %+v", i, by)
		}
		if _, ok := a.Userns.(ask.UsernsKeepID); !ok {
			t.Errorf("container %d: %#v", i, a.Userns)
		}
	}
}

func TestGoneClientEndsFollowing(t *testing.T) {
	path, _ := serve(t)
	c, err := wire.Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(ask.Events{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Ask(wire.Events, body); err != nil {
		t.Fatal(err)
	}
	until(t, c, wire.Event)
	c.Close() // Serve, in the cleanup, would hang if the call did not end
	time.Sleep(10 * time.Millisecond)
}
