// Package native is the daemon's half of the native door: the socket that
// fief itself speaks to. It parses command lines that fief sends unread,
// calls the engine and streams back what it says. The messages are in wire,
// the grammar of the command lines in cmdline.
package native

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// SocketName is the file name of the native socket. It lies in the directory
// of the daemon's docker socket.
const SocketName = "native.sock"

// Listen makes the native socket at path, 0600, and removes a socket left
// there by a daemon that is gone. The caller must hold the lock on the
// daemon's state: a living daemon's socket would be removed as well.
func Listen(path string) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, fault.Wrap(fault.Internal, "make directory of socket", path, err, "")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Wrap(fault.Internal, "remove stale socket", path, err, "")
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "listen on", path, err, "")
	}
	// Between bind and chmod a stranger could connect under a lax umask; the
	// check of SO_PEERCRED at accept refuses him.
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fault.Wrap(fault.Internal, "close to others", path, err, "")
	}
	return l, nil
}

// Serve answers connections on l until ctx ends, then closes l, waits for the
// calls under way to notice that their clients cannot be answered any longer,
// and returns nil. Containers that clients wait for run on. A listener that
// fails ends it with the error.
func Serve(ctx context.Context, l *net.UnixListener, e Engine) error {
	var calls sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer calls.Wait()
	defer cancel()
	defer stop()
	for {
		c, err := l.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if isTransient(err) {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		if err != nil {
			return fault.Wrap(fault.Internal, "accept on", l.Addr().String(), err, "")
		}
		calls.Go(func() {
			defer c.Close()
			who, err := peer(c)
			if err == nil {
				err = allowed(who)
			}
			if err != nil {
				refuse(c, err)
				return
			}
			serve(ctx, c, e, who)
		})
	}
}

// isTransient reports whether accept(2) may succeed when repeated a little
// later: descriptors or memory ran out, or the peer gave up first.
func isTransient(err error) bool {
	for _, e := range []error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// allowed refuses every peer but root and the daemon's own user. The socket's
// mode does the same; this holds when the directory or the mode was changed.
func allowed(cred *unix.Ucred) error {
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fault.New(fault.Denied, "answer", "this client", "only root may use the native socket", "")
	}
	return nil
}
