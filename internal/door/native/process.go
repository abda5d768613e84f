package native

import (
	"context"
	"os"

	"fief/internal/door/native/cmdline"
	"fief/internal/door/native/wire"
	"fief/internal/engine"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// processes answers the verbs that connect a client with a process.
func (k *call) processes(v wire.Verb) (any, error) {
	switch v {
	case wire.RunArgs:
		return k.runArgs()
	case wire.Run:
		r, err := decode[wire.RunCall](k)
		if err != nil {
			return nil, err
		}
		c, err := k.unpack(r.Container)
		if err != nil {
			return nil, err
		}
		return k.run(c, r)
	case wire.ExecArgs:
		return k.execArgs()
	case wire.Exec:
		e, err := decode[wire.ExecCall](k)
		if err != nil {
			return nil, err
		}
		return k.exec(e)
	case wire.Wait:
		w, err := decode[wire.WaitCall](k)
		if err != nil {
			return nil, err
		}
		exit, err := k.engine.Wait(k.ctx, w.ID, engine.WaitFor(w.For))
		return k.one(exit, err)
	case wire.WaitExec:
		n, err := decode[wire.Name](k)
		if err != nil {
			return nil, err
		}
		exit, err := k.engine.ExecWait(k.ctx, n.Name)
		return k.one(exit, err)
	}
	a, err := decode[wire.AttachCall](k)
	if err != nil {
		return nil, err
	}
	return k.attach(a, v == wire.StartAttached)
}

// runArgs runs the container of a command line that fief did not read. The
// client pulls: an image that is not here is its NotFound, and it comes again.
func (k *call) runArgs() (any, error) {
	l, err := wire.DecodeLaunch(k.body)
	if err != nil {
		return nil, err
	}
	r, err := cmdline.ParseRun(l.Args, cmdline.Client{Dir: l.Dir})
	if err != nil {
		return nil, err
	}
	r.Ask.Pull = ask.PullNever
	r.Ask.Caller = callerOf(k.peer, nil)
	return k.run(r.Ask, wire.RunCall{Attach: wire.Attached(r.Attach), Trace: r.Trace, Wait: !r.Detach})
}

func (k *call) run(c ask.Container, r wire.RunCall) (any, error) {
	a, err := k.streams(r.Attach)
	if err != nil {
		return nil, err
	}
	ctx, over := k.watched()
	started, err := k.engine.Run(ctx, c, a, r.Trace)
	over()
	k.dropFiles()
	if err != nil {
		return nil, err
	}
	id := started.Container.ID
	if err := k.warn(started.Warnings); err != nil {
		return nil, err
	}
	if err := k.started(id, started.Trace); err != nil || !r.Wait {
		return nil, err
	}
	k.ready(id)
	return k.exit(started.Exit)
}

// ready makes the container the target of the client's signals.
func (k *call) ready(id string) {
	k.target.ready(k.lasting(),
		func(ctx context.Context, s string) error { return k.engine.Kill(ctx, id, s) },
		func(ctx context.Context, rows, cols uint16) error { return k.engine.Resize(ctx, id, rows, cols) })
}

func (k *call) execArgs() (any, error) {
	l, err := wire.DecodeLaunch(k.body)
	if err != nil {
		return nil, err
	}
	e, err := cmdline.ParseExec(l.Args, cmdline.Client{Dir: l.Dir})
	if err != nil {
		return nil, err
	}
	return k.exec(wire.ExecCall{ID: e.Container, Exec: e.Ask, Attach: wire.Attached(e.Attach), Wait: !e.Detach})
}

func (k *call) exec(e wire.ExecCall) (any, error) {
	a, err := k.streams(e.Attach)
	if err != nil {
		return nil, err
	}
	ctx := k.lasting()
	id, err := k.engine.ExecCreate(ctx, e.ID, e.Exec)
	if err != nil {
		return nil, err
	}
	exit, err := k.engine.ExecWait(k.ctx, id)
	if err != nil {
		return nil, err
	}
	err = k.engine.ExecStart(ctx, id, a)
	k.dropFiles()
	if err != nil {
		return nil, err
	}
	if err := k.started(id, nil); err != nil || !e.Wait {
		return nil, err
	}
	k.target.ready(ctx,
		func(ctx context.Context, s string) error { return k.engine.ExecKill(ctx, id, s) },
		func(ctx context.Context, rows, cols uint16) error { return k.engine.ExecResize(ctx, id, rows, cols) })
	return k.exit(exit)
}

// attach connects the client with a container, which it starts afterwards when
// start is set.
func (k *call) attach(c wire.AttachCall, start bool) (any, error) {
	a, err := k.streams(c.Attach)
	if err != nil {
		return nil, err
	}
	exit, err := k.engine.Wait(k.ctx, c.ID, engine.NextExit)
	if err != nil {
		return nil, err
	}
	err = k.engine.Attach(k.lasting(), c.ID, a)
	k.dropFiles()
	if err != nil {
		return nil, err
	}
	if start {
		ctx, over := k.watched()
		err := k.engine.Start(ctx, c.ID)
		over()
		if err != nil {
			return nil, err
		}
	}
	if err := k.started(c.ID, nil); err != nil {
		return nil, err
	}
	k.ready(c.ID)
	return k.exit(exit)
}

// streams picks the descriptors to connect. The files stay the call's.
func (k *call) streams(want wire.Attached) (engine.Attach, error) {
	a := engine.Attach{DetachKeys: want.DetachKeys}
	if !want.Stdin && !want.Stdout && !want.Stderr {
		return a, nil
	}
	if len(k.files) != 4 {
		return a, fault.New(fault.Invalid, "attach", "the client", "stdin, stdout, stderr and a liveness socket did not come with the request", "")
	}
	pick := func(yes bool, i int) *os.File {
		if yes {
			return k.files[i]
		}
		return nil
	}
	a.Stdin, a.Stdout, a.Stderr = pick(want.Stdin, 0), pick(want.Stdout, 1), pick(want.Stderr, 2)
	a.Alive = k.files[3]
	return a, nil
}

// dropFiles closes the client's descriptors: from here on the monitor's copies
// are the only ones, and their end is the end of the streams.
func (k *call) dropFiles() {
	closeAll(k.files)
	k.files = nil
}

func (k *call) started(id string, trace []engine.Stage) error {
	body := wire.StartedBody{ID: id}
	for _, s := range trace {
		body.Trace = append(body.Trace, wire.Stage(s))
	}
	return k.send(wire.Started, body.Encode())
}

// exit waits for the end of the process and tells it.
func (k *call) exit(end <-chan record.Exit) (any, error) {
	e, err := k.await(end)
	if err != nil {
		return nil, err
	}
	return answered{}, k.send(wire.Exit, wire.ExitBody{Code: e.Code, Error: e.Error}.Encode())
}

// one is the answer to a plain wait.
func (k *call) one(end <-chan record.Exit, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return k.await(end)
}

func (k *call) await(end <-chan record.Exit) (record.Exit, error) {
	select {
	case e, ok := <-end:
		if !ok {
			return e, fault.New(fault.Internal, "wait", "", "the engine gave up waiting", "")
		}
		return e, nil
	case <-k.ctx.Done():
		return record.Exit{}, fault.Wrap(fault.Canceled, "wait", "", k.ctx.Err(), "")
	}
}
