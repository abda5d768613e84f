package docker

import (
	"context"
	"net"

	"golang.org/x/sys/unix"

	"fief/internal/words/ask"
	"fief/internal/words/idmap"
)

// callerKey is the key of a connection's caller in its context.
type callerKey struct{}

// withCaller notes who is at the other end of a connection, for containers that
// are to have the caller's ids. The API has no place for the user behind root,
// so root is nobody: `sudo docker` asks as root.
func withCaller(ctx context.Context, c net.Conn) context.Context {
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil || credErr != nil || cred.Uid == 0 || cred.Uid > idmap.Max || cred.Gid > idmap.Max {
		return ctx
	}
	return context.WithValue(ctx, callerKey{}, &ask.Caller{UID: cred.Uid, GID: cred.Gid})
}

// callerOf is who made a request; nil when it is not known.
func callerOf(ctx context.Context) *ask.Caller {
	c, _ := ctx.Value(callerKey{}).(*ask.Caller)
	return c
}
