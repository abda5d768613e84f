package systemd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// refusal is the message that refuses call 1 as systemd does for a unit it has not.
func refusal() []byte {
	var body, w writer
	body.text("Unit nothing.scope not loaded.")
	w.b = append(w.b, 'l', byte(failed), 0, 1)
	w.u32(uint32(len(body.b)))
	w.u32(1)
	w.array(8, func() {
		w.b = append(w.b, fieldReply)
		w.signature("u")
		w.u32(1)
		w.align(8)
		w.b = append(w.b, fieldError)
		w.signature("s")
		w.text(noSuchUnit)
		w.align(8)
		w.b = append(w.b, fieldSignature)
		w.signature("g")
		w.signature("s")
	})
	w.align(8)
	return append(w.b, body.b...)
}

// busy is a systemd that has much else to do: it looks at a connection when the
// other side has said all that it is going to. What it has read it takes lines of
// authentication from; only what comes after another read does it take a message
// from (systemd, bus_socket_read_auth and bus_socket_read_message: the event loop
// waits for the socket, whatever has been read).
func busy(c net.Conn) error {
	var had []byte
	more := func() error {
		b := make([]byte, 4096)
		for {
			n, err := c.Read(b)
			had = append(had, b[:n]...)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return c.SetReadDeadline(time.Time{})
			}
			if err != nil {
				return err
			}
			c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		}
	}
	for begun := false; !begun; {
		if err := more(); err != nil {
			return err
		}
		had = bytes.TrimPrefix(had, []byte{0})
		for {
			line, rest, whole := bytes.Cut(had, []byte("\r\n"))
			if !whole {
				break
			}
			had = rest
			if string(line) == "BEGIN" {
				begun = true
				break
			}
			c.Write([]byte("OK 0123456789abcdef0123456789abcdef\r\n"))
		}
	}
	if err := more(); err != nil {
		return err
	}
	if m, err := parse(had); err != nil || m.kind != call || binary.LittleEndian.Uint32(had[8:]) != 1 {
		return errors.New("no call")
	}
	_, err := c.Write(refusal())
	return err
}

// TestFirstCall: a call is answered that follows at once on the connection, however
// late systemd comes to read what it is sent.
func TestFirstCall(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "private")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			defer c.Close()
			time.AfterFunc(10*time.Second, func() { c.Close() })
			err = busy(c)
		}
		served <- err
	}()
	b, err := dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.reset("nothing.scope"); !refused(err, noSuchUnit) {
		t.Errorf("%v; systemd: %v", err, <-served)
	}
}

// TestSystemd: systemd itself answers the first call, by either socket, each of many
// times.
func TestSystemd(t *testing.T) {
	if !Running() {
		t.Skip("tool: systemd is not running")
	}
	for _, socket := range []string{ownSocket, busSocket} {
		begun := time.Now()
		for range 50 {
			b, err := dial(socket)
			if err != nil {
				t.Fatal(err)
			}
			limit := unix.NsecToTimeval((patience / 3).Nanoseconds())
			unix.SetsockoptTimeval(b.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
			if b.viaBus = socket == busSocket; b.viaBus {
				err = b.register()
			}
			if err == nil {
				err = b.reset("nothing.scope")
			}
			b.Close()
			if !refused(err, noSuchUnit) && !refused(err, notLoaded) {
				t.Fatalf("%s, after %v: %v", socket, time.Since(begun), err)
			}
		}
	}
}
