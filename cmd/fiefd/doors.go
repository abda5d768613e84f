package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"fief/internal/door/docker"
	"fief/internal/door/native"
	"fief/internal/words/fault"
)

// farewell is how long open requests may take to end when the daemon does.
const farewell = 2 * time.Second

// doors are the open sockets of a machine.
type doors struct {
	machine *machine
	docker  []net.Listener
	native  []*net.UnixListener
}

// listen opens the docker door on every -H, or on what systemd passed, and the
// native door beside each.
func (m *machine) listen(s settings) (d *doors, err error) {
	d = &doors{machine: m}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	streams, packets, err := inherited()
	if err != nil {
		return d, err
	}
	for _, f := range streams {
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return d, fault.Wrap(fault.Invalid, "take over", "an inherited socket", err, "")
		}
		d.docker = append(d.docker, l)
	}
	for _, f := range packets {
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return d, fault.Wrap(fault.Invalid, "take over", "an inherited socket", err, "")
		}
		d.native = append(d.native, l.(*net.UnixListener))
	}
	if len(d.docker) > 0 && len(d.native) > 0 {
		return d, nil
	}
	for _, host := range s.Hosts {
		path := strings.TrimPrefix(host, "unix://")
		l, err := listen("unix", path)
		if err != nil {
			return d, err
		}
		d.docker = append(d.docker, l)
		beside := filepath.Join(filepath.Dir(path), native.SocketName)
		if d.listens(beside) {
			continue // two -H in one directory share it
		}
		n, err := native.Listen(beside)
		if err != nil {
			return d, err
		}
		d.native = append(d.native, n)
	}
	return d, nil
}

// listens reports whether a native door is open at path.
func (d *doors) listens(path string) bool {
	return slices.ContainsFunc(d.native, func(l *net.UnixListener) bool { return l.Addr().String() == path })
}

func (d *doors) close() {
	for _, l := range d.docker {
		l.Close()
	}
	for _, l := range d.native {
		l.Close()
	}
}

func (d *doors) names() (out []string) {
	for _, l := range d.docker {
		out = append(out, l.Addr().String())
	}
	return out
}

// serve answers until ctx ends or a door fails.
func (d *doors) serve(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	server := docker.NewServer(docker.New(d.machine.engine, docker.Options{Version: version}))
	failed := make(chan error, len(d.docker)+len(d.native))
	for _, l := range d.docker {
		go func() { failed <- server.Serve(l) }()
	}
	for _, l := range d.native {
		go func() { failed <- native.Serve(ctx, l, d.machine.engine) }()
	}
	var err error
	waiting := cap(failed)
	select {
	case <-ctx.Done():
	case err = <-failed:
		waiting--
	}
	stop()
	bye, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	if server.Shutdown(bye) != nil {
		server.Close() // attached clients and followers of logs do not end by themselves
	}
	for range waiting {
		<-failed
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
