// Package journal sends a container's output to systemd-journald in its native
// protocol (systemd, docs/JOURNAL_NATIVE_PROTOCOL.md), with the fields that
// Docker's journald driver sends.
package journal

import (
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// Socket is where journald listens.
const Socket = "/run/systemd/journal/socket"

// Log is a connection with journald. It has no connection in fact: each piece
// is one datagram, so that a journald that is restarted is found again.
type Log struct {
	mu     sync.Mutex
	fd     int
	fixed  []byte // the fields that are the same for every piece
	id     string // beginning of the ids of partial lines
	long   map[string]*partial
	buf    []byte
	number uint64 // of pieces so far
	err    error
}

// partial is a line of a stream that goes on.
type partial struct {
	id      string
	ordinal int
}

// Open makes a log whose pieces all have fields, each "NAME=value". id makes the
// ids of partial lines unique. Unavailable: journald does not listen.
func Open(fields []string, id string) (*Log, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fault.Wrap(fault.Exhausted, "use", "journald", err, "")
	}
	if unix.Access(Socket, unix.W_OK) != nil {
		unix.Close(fd)
		return nil, fault.Say(fault.Unavailable, "journald is not enabled on this host")
	}
	l := &Log{fd: fd, id: id, long: map[string]*partial{}}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, "=")
		l.fixed = appendField(l.fixed, name, []byte(value))
	}
	return l, nil
}

// appendField adds a field in the form that may hold newlines, when it has one.
func appendField(b []byte, name string, value []byte) []byte {
	b = append(b, name...)
	for _, c := range value {
		if c == '\n' {
			b = append(b, '\n')
			n := uint64(len(value))
			b = append(b, byte(n), byte(n>>8), byte(n>>16), byte(n>>24), byte(n>>32), byte(n>>40), byte(n>>48), byte(n>>56))
			return append(append(b, value...), '\n')
		}
	}
	b = append(b, '=')
	return append(append(b, value...), '\n')
}

// Lock implements lines.Sink.
func (l *Log) Lock() { l.mu.Lock() }

// Unlock implements lines.Sink.
func (l *Log) Unlock() { l.mu.Unlock() }

// Flush implements lines.Sink. Nothing waits: Add has sent it.
func (l *Log) Flush() {}

// Close implements lines.Sink.
func (l *Log) Close() error { return unix.Close(l.fd) }

// Err is why the last piece could not be sent, nil when it was.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Add implements lines.Sink. It waits while journald's queue is full; a piece
// that cannot be sent, as while journald is restarted, is lost.
func (l *Log) Add(text []byte, stream string, at time.Time) {
	whole := len(text) > 0 && text[len(text)-1] == '\n'
	if whole {
		text = text[:len(text)-1]
	}
	b := append(l.buf[:0], l.fixed...)
	b = l.partialFields(b, stream, at, whole)
	priority := "6" // LOG_INFO
	if stream == "stderr" {
		priority = "3" // LOG_ERR
	}
	b = appendField(b, "PRIORITY", []byte(priority))
	b = append(b, "SYSLOG_TIMESTAMP="...)
	b = append(at.UTC().AppendFormat(b, time.RFC3339Nano), '\n')
	l.number++
	b = appendField(b, "CONTAINER_LOG_ORDINAL", strconv.AppendUint(nil, l.number, 10))
	b = appendField(b, "MESSAGE", text)
	l.buf = b
	for {
		l.err = unix.Sendto(l.fd, b, unix.MSG_NOSIGNAL, &unix.SockaddrUnix{Name: Socket})
		if l.err != unix.EINTR {
			return
		}
	}
}

// partialFields says of which line a piece is, and that it goes on.
func (l *Log) partialFields(b []byte, stream string, at time.Time, whole bool) []byte {
	p := l.long[stream]
	if p == nil {
		if whole {
			return b
		}
		p = &partial{id: l.id + "-" + stream + "-" + strconv.FormatInt(at.UnixNano(), 36)}
		l.long[stream] = p
	}
	p.ordinal++
	if !whole {
		b = append(b, "CONTAINER_PARTIAL_MESSAGE=true\n"...)
	} else {
		delete(l.long, stream)
	}
	b = appendField(b, "CONTAINER_PARTIAL_ID", []byte(p.id))
	b = appendField(b, "CONTAINER_PARTIAL_ORDINAL", strconv.AppendInt(nil, int64(p.ordinal), 10))
	return appendField(b, "CONTAINER_PARTIAL_LAST", strconv.AppendBool(nil, whole))
}
