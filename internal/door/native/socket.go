package native

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/door/native/wire"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

// socket is an accepted connection as wire needs it, on the poller.
type socket struct{ c *net.UnixConn }

// Read implements wire.Packets. Go's net receives with MSG_CMSG_CLOEXEC.
func (s socket) Read(b []byte) (int, []int, error) {
	oob := make([]byte, unix.CmsgSpace(wire.MaxFiles*4))
	n, oobn, flags, _, err := s.c.ReadMsgUnix(b, oob)
	var files []int
	if oobn > 0 {
		files = wire.Descriptors(oob[:oobn])
	}
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err == nil && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = fault.New(fault.Corrupt, "read message", "", "packet cut short", "")
	}
	return n, files, err
}

// Write implements wire.Packets.
func (s socket) Write(b []byte, files []int) error {
	var oob []byte
	if len(files) > 0 {
		oob = unix.UnixRights(files...)
	}
	_, _, err := s.c.WriteMsgUnix(b, oob, nil)
	return err
}

// peer is who connected: the ids at the time of connect(2), as this process's
// user namespace knows them (unix(7), SO_PEERCRED).
func peer(c *net.UnixConn) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "look at", "client", err, "")
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cred, fault.Wrap(fault.Internal, "look at", "client", errors.Join(err, credErr), "")
}

// callerOf is who asks for a container: the peer himself, except that root may
// say on whose behalf he asks (sudo(8)). Root on nobody's behalf is nobody: a
// container that is to have the caller's ids must not have root's.
func callerOf(cred *unix.Ucred, said *ask.Caller) *ask.Caller {
	if cred.Uid != 0 {
		return &ask.Caller{UID: cred.Uid, GID: cred.Gid}
	}
	if said == nil || said.UID == 0 || said.UID > idmap.Max || said.GID > idmap.Max {
		return nil
	}
	return said
}

// out serialises what a call writes to its client.
type out struct {
	mu   sync.Mutex // held while one message is written
	sock socket
}

func (o *out) send(kind wire.Kind, body []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return wire.Write(o.sock, kind, body)
}

func (o *out) sendJSON(kind wire.Kind, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fault.Wrap(fault.Internal, "encode answer", "", err, "")
	}
	return o.send(kind, body)
}

// refuse answers a client that is not served. It takes the request first and
// drops it: closing a unix socket with unread data resets the peer, who would
// then not see the answer.
func refuse(c *net.UnixConn, err error) {
	_ = c.SetDeadline(time.Now().Add(time.Second)) // a client that says nothing gets no answer
	m, readErr := wire.NewReader(socket{c}).Next()
	if readErr != nil {
		return
	}
	m.Close()
	_ = (&out{sock: socket{c}}).send(wire.Failure, wire.EncodeFailure(err))
}

// files turns received descriptors into files the call owns. Stdio must stay
// in the mode its other holders expect, hence no O_NONBLOCK here.
func files(fds []int) []*os.File {
	var fs []*os.File
	for _, fd := range fds {
		fs = append(fs, os.NewFile(uintptr(fd), "client's descriptor"))
	}
	return fs
}

func closeAll(fs []*os.File) {
	for _, f := range fs {
		f.Close()
	}
}
