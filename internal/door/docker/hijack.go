package docker

import (
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/moby/moby/api/types"
	"golang.org/x/sys/unix"

	"fief/internal/engine"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// linger is how long a client may take to close its side after the last
// output.
const linger = 5 * time.Second

// takeover is a connection taken over from HTTP: raw bytes both ways from now
// on.
type takeover struct {
	conn net.Conn
	in   io.Reader          // what the client had sent already, then conn
	exit <-chan record.Exit // of an exec session that was started here; nil: nothing to wait for
}

// takeOver answers 101, or 200 to clients that did not ask for an upgrade, and
// takes the connection. The words of the status line are what clients before
// Docker 1.10 look for.
func takeOver(w http.ResponseWriter, r *request, media string) (*takeover, error) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, invalid("this request takes over its connection, which needs HTTP/1.1: %v", err)
	}
	if a, ok := w.(*answer); ok {
		a.begun = true
	}
	conn.SetDeadline(time.Time{}) // the server's header timeout may still run
	head := "HTTP/1.1 200 OK\r\nContent-Type: " + types.MediaTypeRawStream + "\r\n\r\n"
	if r.Header.Get("Upgrade") != "" {
		head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + media + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
	}
	if _, err := io.WriteString(conn, head); err != nil {
		conn.Close()
		return nil, err
	}
	return &takeover{conn: conn, in: buf.Reader}, nil
}

// streamMedia is the content type of a stream: framed ones have a name of
// their own since API 1.42.
func streamMedia(framed bool, version int) string {
	if framed && version >= 42 {
		return types.MediaTypeMultiplexedStream
	}
	return types.MediaTypeRawStream
}

// ends is this door's side of an attachment: pipes whose other ends the engine
// has. alive closes when the client is gone.
type ends struct {
	stdin          *os.File // written
	alive          *os.File // a socket; the monitor says on it why the attachment is over
	stdout, stderr *os.File // read
}

// newEnds makes the pipes for what is wanted. The caller closes both sides,
// the engine's as soon as the engine has it.
func newEnds(stdin, stdout, stderr bool) (e *ends, at engine.Attach, err error) {
	e = &ends{}
	for _, p := range []struct {
		want           bool
		reader, writer **os.File
	}{
		{stdin, &at.Stdin, &e.stdin},
		{stdout, &e.stdout, &at.Stdout},
		{stderr, &e.stderr, &at.Stderr},
	} {
		if p.want && err == nil {
			*p.reader, *p.writer, err = os.Pipe()
		}
	}
	if err == nil {
		at.Alive, e.alive, err = socketPair()
	}
	if err != nil {
		e.close()
		closeAttach(at)
		return nil, at, fault.Wrap(fault.Exhausted, "make pipe", "", err, "raise the daemon's limit on open files")
	}
	return e, at, nil
}

func socketPair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "attachment"), os.NewFile(uintptr(fds[1]), "attachment"), nil
}

// ended waits until the attachment is over and reports whether that is because
// its process has ended, not because the client has detached or is gone.
func (e *ends) ended() bool {
	var why [1]byte
	n, _ := e.alive.Read(why[:])
	return n == 1 && why[0] == engine.AttachEnded
}

func (e *ends) close() { closeFiles(e.stdin, e.stdout, e.stderr, e.alive) }

func closeAttach(at engine.Attach) { closeFiles(at.Stdin, at.Stdout, at.Stderr, at.Alive) }

func closeFiles(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// serve carries bytes between the client and the pipes until the output has
// ended or the client is gone, and closes everything. The end of the client's
// input only ends stdin: output goes on.
func (t *takeover) serve(e *ends, out *muxer) {
	var input, output sync.WaitGroup
	input.Go(func() {
		t.feed(e.stdin)
		if t.awaitHangup() {
			e.close() // ends the pumps below when the client went first
		}
	})
	for _, p := range []struct {
		stream byte
		from   *os.File
	}{{streamOut, e.stdout}, {streamErr, e.stderr}} {
		if p.from == nil {
			continue
		}
		output.Go(func() {
			out.pump(p.stream, p.from)
			p.from.Close() // the writer learns that nobody reads any more
		})
	}
	if e.stdin != nil && e.stdout == nil && e.stderr == nil {
		output.Go(func() { awaitReader(e.stdin) })
	}
	output.Wait()
	if t.exit != nil && e.ended() {
		<-t.exit // so that inspect, which the client asks next, knows the exit code
	}
	t.finish(e)
	input.Wait()
	t.conn.Close()
}

// feed copies the client's input to stdin, or drops it, until its end.
func (t *takeover) feed(stdin *os.File) {
	if stdin == nil {
		io.Copy(io.Discard, t.in)
		return
	}
	if _, err := io.Copy(stdin, t.in); err != nil {
		io.Copy(io.Discard, t.in) // the container reads no more
	}
	stdin.Close()
}

// finish tells the client that no more comes, and bounds how long it may take
// to close.
func (t *takeover) finish(e *ends) {
	if half, ok := t.conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
	t.conn.SetReadDeadline(time.Now().Add(linger))
	closeFiles(e.stdin, e.alive)
}

// awaitHangup returns when the client has closed its connection, not only its
// writing half, or after the read deadline; false when it cannot tell. A killed
// client would otherwise hold its attachment until the container writes again.
// A unix socket says POLLHUP when the peer is gone (unix(7)); TCP only after a
// reset, so there a vanished client is noticed by the next write.
func (t *takeover) awaitHangup() bool {
	sc, ok := t.conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	raw.Read(gone)
	return true
}

// awaitReader returns when nobody has the reading end of the pipe open, or it
// was closed here: pipe(7) says POLLERR on the writing end.
func awaitReader(pipe *os.File) {
	if raw, err := pipe.SyscallConn(); err == nil {
		raw.Write(gone)
	}
}

// gone reports whether the other side of fd is closed. It is called again by
// the runtime's poller whenever the state of fd changes.
func gone(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(p, 0)
	return err != unix.EINTR && (err != nil || n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0)
}
