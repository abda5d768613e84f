package systemd

import (
	"encoding/hex"
	"errors"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// The sockets of systemd: its own, which only root may use and which works
// without a bus, and the system bus's.
const (
	ownSocket = "/run/systemd/private"
	busSocket = "/run/dbus/system_bus_socket"
)

// The names of the manager (org.freedesktop.systemd1(5)).
const (
	service = "org.freedesktop.systemd1"
	manager = "/org/freedesktop/systemd1"
	face    = "org.freedesktop.systemd1.Manager"
)

// patience is how long a call or a job may take. Where many units come and go
// systemd has been seen to need 25 s to answer.
const patience = 90 * time.Second

// Bus is a connection with the host's systemd. It is for one goroutine at a time.
type Bus struct {
	fd      int
	serial  uint32
	viaBus  bool
	signals []heard // that came before an answer
}

// Running reports whether systemd is this machine's init (sd_booted(3)).
func Running() bool {
	var st unix.Stat_t
	return unix.Lstat("/run/systemd/system", &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// Connect opens a connection, which the caller closes. It fails with Unsupported
// where there is no systemd, and for anyone but the initial root: a user's own
// systemd is not spoken to.
func Connect() (*Bus, error) {
	if unix.Geteuid() != 0 || nested() {
		return nil, fault.New(fault.Unsupported, "use", "the systemd cgroup driver", "it is root's: a user's own systemd is not spoken to", "use the cgroupfs driver")
	}
	if !Running() {
		return nil, fault.New(fault.Unsupported, "use", "the systemd cgroup driver", "systemd is not running here", "use the cgroupfs driver")
	}
	b, err := dial(ownSocket)
	if err == nil {
		return b, nil
	}
	b, busErr := dial(busSocket)
	if busErr != nil {
		return nil, fault.Wrap(fault.Unavailable, "reach", "systemd", errors.Join(err, busErr), "")
	}
	b.viaBus = true
	if err := b.register(); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// nested reports whether this process is in a user namespace of its own. The
// initial one's inode is PROC_USER_INIT_INO.
func nested() bool {
	var st unix.Stat_t
	const initial = 0xEFFFFFFD
	return unix.Stat("/proc/self/ns/user", &st) == nil && st.Ino != initial
}

func dial(socket string) (*Bus, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	b := &Bus{fd: fd}
	limit := unix.NsecToTimeval(patience.Nanoseconds())
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit)
	if err = unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err == nil {
		err = b.authenticate()
	}
	if err != nil {
		b.Close()
		return nil, &os.PathError{Op: "connect", Path: socket, Err: err}
	}
	return b, nil
}

// Close ends the connection.
func (b *Bus) Close() error { return unix.Close(b.fd) }

// authenticate says who this is; the kernel vouches for it (D-Bus specification,
// "Authentication Protocol", EXTERNAL). BEGIN goes with it, as in systemd's own
// clients: sent after the OK, systemd may read it together with the first call, and
// then waits for the socket instead of looking at what it has read
// (systemd, sd-bus/bus-socket.c, bus_socket_read_auth).
func (b *Bus) authenticate() error {
	uid := hex.EncodeToString([]byte(strconv.Itoa(unix.Geteuid())))
	if err := b.send([]byte("\x00AUTH EXTERNAL " + uid + "\r\nBEGIN\r\n")); err != nil {
		return err
	}
	var line []byte
	for len(line) < 512 {
		c, err := b.read(1)
		if err != nil {
			return err
		}
		line = append(line, c...)
		if c[0] == '\n' {
			break
		}
	}
	if len(line) < 3 || string(line[:3]) != "OK " {
		return errors.New("systemd refuses this user: " + strconv.Quote(string(line)))
	}
	return nil
}

// register makes this connection one of the bus, and has it told of jobs.
func (b *Bus) register() error {
	const bus = "org.freedesktop.DBus"
	if _, err := b.ask(asked{destination: bus, path: "/org/freedesktop/DBus", face: bus, member: "Hello"}); err != nil {
		return err
	}
	var rule writer
	rule.text("type='signal',sender='" + service + "',interface='" + face + "',member='JobRemoved'")
	if _, err := b.ask(asked{destination: bus, path: "/org/freedesktop/DBus", face: bus, member: "AddMatch", types: "s", body: rule.b}); err != nil {
		return err
	}
	_, err := b.manager("Subscribe", "", nil)
	return err
}

// manager calls a method of systemd's manager.
func (b *Bus) manager(member, types string, body []byte) (heard, error) {
	a := asked{path: manager, face: face, member: member, types: types, body: body}
	if b.viaBus {
		a.destination = service
	}
	return b.ask(a)
}

// Refusal is an error that systemd answers with.
type Refusal struct {
	Name string // such as org.freedesktop.systemd1.UnitExists
	Text string
}

// Error is systemd's own text.
func (r *Refusal) Error() string {
	if r.Text == "" {
		return r.Name
	}
	return r.Text
}

// refused reports whether err is systemd's refusal of that name.
func refused(err error, name string) bool {
	var r *Refusal
	return errors.As(err, &r) && r.Name == name
}

// ask sends a call and waits for its answer. Signals that come meanwhile are
// kept for done.
func (b *Bus) ask(a asked) (heard, error) {
	b.serial++
	if err := b.send(a.message(b.serial)); err != nil {
		return heard{}, lost(a.member, err)
	}
	for {
		m, err := b.receive()
		if err != nil {
			return heard{}, lost(a.member, err)
		}
		switch {
		case m.kind == signal:
			b.signals = append(b.signals, m)
		case m.reply != b.serial:
		case m.kind == failed:
			r := &Refusal{Name: m.fault}
			if t := m.texts(); len(t) > 0 {
				r.Text = t[0]
			}
			return heard{}, r
		case m.kind == answer:
			return m, nil
		}
	}
}

// done waits until a job is: signal JobRemoved with its path and its result,
// "done" for success (org.freedesktop.systemd1(5)).
func (b *Bus) done(job string) (result string, err error) {
	for until := time.Now().Add(patience); time.Now().Before(until); {
		for _, m := range b.signals {
			if t := m.texts(); m.member == "JobRemoved" && len(t) >= 3 && t[0] == job {
				return t[2], nil
			}
		}
		b.signals = nil
		m, err := b.receive()
		if err != nil {
			return "", lost("wait for a job", err)
		}
		if m.kind == signal {
			b.signals = append(b.signals, m)
		}
	}
	return "", lost("wait for a job", unix.ETIMEDOUT)
}

func lost(what string, err error) error {
	return fault.Wrap(fault.Unavailable, "ask", "systemd", &os.SyscallError{Syscall: what, Err: err}, "")
}

func (b *Bus) receive() (heard, error) {
	head, err := b.read(headLength)
	if err != nil {
		return heard{}, err
	}
	rest, err := sizes(head)
	if err != nil {
		return heard{}, err
	}
	body, err := b.read(rest)
	if err != nil {
		return heard{}, err
	}
	return parse(append(head, body...))
}

func (b *Bus) send(text []byte) error {
	for len(text) > 0 {
		n, err := unix.SendmsgN(b.fd, text, nil, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		text = text[n:]
	}
	return nil
}

func (b *Bus) read(n int) ([]byte, error) {
	out := make([]byte, n)
	for at := 0; at < n; {
		got, err := unix.Read(b.fd, out[at:])
		if err == unix.EINTR {
			continue
		}
		if err == nil && got == 0 {
			err = unix.ECONNRESET
		}
		if err == unix.EAGAIN {
			err = unix.ETIMEDOUT
		}
		if err != nil {
			return nil, err
		}
		at += got
	}
	return out, nil
}
