package docker

import (
	"context"
	"net/http"
	"path"

	"github.com/moby/moby/api/types/common"
	"github.com/moby/moby/api/types/container"

	"fief/internal/engine"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// execs is what runs further processes in a container. ExecStart returns when
// the process runs or has failed to.
type execs interface {
	ExecCreate(ctx context.Context, id string, e ask.Exec) (string, error)
	ExecStart(ctx context.Context, execID string, at engine.Attach) error
	ExecInspect(ctx context.Context, execID string) (record.Exec, error)
	ExecResize(ctx context.Context, execID string, rows, cols uint16) error
	ExecWait(ctx context.Context, execID string) (<-chan record.Exit, error)
}

func (d *door) execRoutes() []route {
	return []route{
		on("POST /containers/*/exec", d.execCreate),
		on("POST /exec/*/start", d.execStart),
		on("POST /exec/*/resize", d.execResize),
		on("GET /exec/*/json", d.execInspect),
	}
}

func (d *door) execCreate(w http.ResponseWriter, r *request) error {
	var body container.ExecCreateRequest
	if err := r.body(&body, true); err != nil {
		return err
	}
	if len(body.Cmd) == 0 {
		return invalid("no exec command specified")
	}
	if body.WorkingDir != "" && !path.IsAbs(body.WorkingDir) {
		return invalid("the working directory '%s' is invalid, it needs to be an absolute path", body.WorkingDir)
	}
	keys, err := parseDetachKeys(body.DetachKeys)
	if err != nil {
		return err
	}
	size, err := consoleSize(body.ConsoleSize)
	if err != nil {
		return err
	}
	id, err := d.engine.ExecCreate(r.uncut(), r.name, ask.Exec{
		Cmd: body.Cmd, Env: body.Env, WorkDir: body.WorkingDir, User: body.User, TTY: body.Tty, Privileged: body.Privileged,
		OpenStdin: body.AttachStdin, AttachOut: body.AttachStdout, AttachErr: body.AttachStderr,
		DetachKeys: keys, ConsoleSize: size,
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, common.IDResponse{ID: id})
}

func (d *door) execStart(w http.ResponseWriter, r *request) error {
	var body container.ExecStartRequest
	if err := r.body(&body, false); err != nil {
		return err
	}
	size, err := consoleSize(body.ConsoleSize)
	if err != nil {
		return err
	}
	x, err := d.engine.ExecInspect(r.Context(), r.name)
	if err != nil {
		return err
	}
	if x.Started {
		return fault.Say(fault.Conflict, "exec session "+x.ID+" has already been started")
	}
	if body.Detach {
		if err := d.engine.ExecStart(r.uncut(), x.ID, engine.Attach{}); err != nil {
			return err
		}
		w.WriteHeader(http.StatusOK)
		return nil
	}
	return d.execAttached(w, r, x, execView{framed: !body.Tty, size: size})
}

// execView is how the starting client sees the session. It decides the
// framing by its own word on the terminal, as docker-py relies on.
type execView struct {
	framed bool
	size   [2]uint16
}

// execAttached takes the connection over before the start: clients expect the
// reason of a failed start in the stream, and the exit code from inspect.
func (d *door) execAttached(w http.ResponseWriter, r *request, x record.Exec, view execView) error {
	e, at, err := newEnds(x.OpenStdin, x.AttachOut, x.AttachErr && !x.TTY)
	if err != nil {
		return err
	}
	t, err := takeOver(w, r, streamMedia(view.framed, r.version))
	if err != nil {
		e.close()
		closeAttach(at)
		return err
	}
	out := &muxer{w: t.conn, framed: view.framed}
	exit, err := d.engine.ExecWait(r.uncut(), x.ID)
	if err == nil {
		err = d.engine.ExecStart(r.uncut(), x.ID, at)
	}
	closeAttach(at)
	if err == nil {
		t.exit = exit
	}
	if err != nil {
		out.say(streamOut, message(err)+"\r\n")
	} else if x.TTY && view.size != [2]uint16{} {
		d.engine.ExecResize(r.uncut(), x.ID, view.size[0], view.size[1]) // the client resizes again
	}
	t.serve(e, out)
	return nil
}

func (d *door) execResize(w http.ResponseWriter, r *request) error {
	rows, cols, err := r.size()
	if err != nil {
		return err
	}
	if err := d.engine.ExecResize(r.Context(), r.name, rows, cols); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (d *door) execInspect(w http.ResponseWriter, r *request) error {
	x, err := d.engine.ExecInspect(r.Context(), r.name)
	if err != nil {
		return err
	}
	out := container.ExecInspectResponse{
		ID: x.ID, Running: x.Running, ContainerID: x.Container, Pid: x.PID, DetachKeys: []byte{},
		OpenStdin: x.OpenStdin, OpenStdout: x.AttachOut, OpenStderr: x.AttachErr, CanRemove: x.Started && !x.Running,
		ProcessConfig: &container.ExecProcessConfig{
			Tty: x.TTY, Entrypoint: x.Path, Arguments: notNil(x.Args), Privileged: &x.Privileged, User: x.User,
		},
	}
	if x.Started && !x.Running {
		out.ExitCode = &x.ExitCode
	}
	return ok(w, out)
}
