package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/fd"
	"fief/internal/words/fault"
	"fief/internal/words/plan"
)

// runHooks runs the named hooks of a container in the runtime's namespaces, with
// its state on their stdin (OCI runtime spec, POSIX-platform Hooks). The first
// one that fails ends it, but for poststop: there a failure is a warning.
//
// The state is the one that the lifecycle has at that step (runtime.md): hooks of
// the create follow step 2, and are told "created", as crun tells them, where
// runc says "creating"; those after the start are told "running", also when the
// program has ended meanwhile, which it may do at any moment.
func runHooks(s *specs.Spec, c *container, names ...string) error {
	if s.Hooks == nil {
		return nil
	}
	state := c.oci()
	for _, name := range names {
		var list []specs.Hook
		switch name {
		case "prestart":
			//lint:ignore SA1019 callers still set it, and the spec still has it run
			list = s.Hooks.Prestart
			state.Status, state.Pid = specs.StateCreated, c.PID
		case "createRuntime":
			list = s.Hooks.CreateRuntime
			state.Status, state.Pid = specs.StateCreated, c.PID
		case "poststart":
			list = s.Hooks.Poststart
			state.Status, state.Pid = specs.StateRunning, c.PID
		case "poststop":
			list = s.Hooks.Poststop
			state.Status, state.Pid = specs.StateStopped, 0
		}
		for _, h := range list {
			err := runHook(h, name, state)
			if err != nil && name != "poststop" {
				return err
			}
			if err != nil {
				os.Stderr.WriteString("warning: " + err.Error() + "\n")
			}
		}
	}
	return nil
}

// runHook runs one hook. It has as long as it likes unless its timeout says
// otherwise; what it has started and left behind is not waited for.
func runHook(h specs.Hook, name string, state specs.State) error {
	input, err := json.Marshal(state)
	if err != nil {
		return err
	}
	ctx := context.Background()
	if h.Timeout != nil {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, time.Duration(*h.Timeout)*time.Second)
		defer cancel()
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, h.Path)
	cmd.Args, cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = h.Args, h.Env, bytes.NewReader(input), &out, &out
	cmd.WaitDelay = time.Second
	if len(h.Args) == 0 {
		cmd.Args = []string{h.Path}
	}
	if cmd.Env == nil {
		cmd.Env = []string{}
	}
	err = cmd.Run()
	if ctx.Err() != nil {
		err = errors.New("it took longer than its timeout, and was killed")
	}
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	return fault.Wrap(fault.Internal, "run "+name+" hook", h.Path, err, printable(out.Bytes()))
}

// printable is the beginning of what a hook has printed.
func printable(b []byte) string {
	return strings.TrimSpace(strings.ToValidUTF8(string(b[:min(len(b), 1024)]), "?"))
}

// end destroys a container and runs the hooks that follow.
func (c *container) end(s *specs.Spec) {
	c.destroy()
	runHooks(s, c, "poststop")
}

// inside is what fief-oci does for hooks that the container's process runs: the
// files of a plan with such hooks.
type inside struct {
	c              *container
	create, launch *os.File // take the state as the hooks at create and at start see it; nil: none
	output         *os.File
}

// makeHooks gives f the descriptors that a plan with hooks expects.
func (c *container) makeHooks(s *specs.Spec, f *files) (*inside, error) {
	h := &inside{c: c}
	if s.Hooks == nil {
		return h, nil
	}
	s.Root.Path = f.absolute(s.Root.Path)
	var err error
	memory := func(name string, wanted bool) (file *os.File) {
		if !wanted || err != nil {
			return nil
		}
		if file, err = fd.Memory(name, nil); err == nil {
			f.files = append(f.files, file)
			f.given[name] = int(file.Fd())
		}
		return file
	}
	h.create = memory("hooks:createContainer", len(s.Hooks.CreateContainer) > 0)
	h.output = memory("hooks:output", len(s.Hooks.CreateContainer) > 0)
	h.launch = memory("hooks:startContainer", len(s.Hooks.StartContainer) > 0)
	if err != nil {
		return nil, err
	}
	if !answers(s) {
		return h, nil
	}
	name := filepath.Join(c.dir, "answer")
	if err := unix.Mkfifo(name, 0o600); err != nil {
		return nil, fault.Wrap(fault.Internal, "make", name, err, "")
	}
	n, err := openNamed(name, unix.O_RDWR, "open")
	if err == nil {
		f.give("answer", n)
	}
	return h, err
}

// answers reports whether the container's process says when it runs its program.
func answers(s *specs.Spec) bool {
	return s.Hooks != nil && len(s.Hooks.StartContainer)+len(s.Hooks.Poststart) > 0
}

// tell writes the state for the hooks, now that there is a pid. The hooks cannot
// change it for one another.
func (h *inside) tell() error {
	for file, status := range map[*os.File]specs.ContainerState{h.create: specs.StateCreated, h.launch: specs.StateCreated} {
		if file == nil {
			continue
		}
		state := h.c.oci()
		state.Status, state.Pid = status, h.c.PID
		b, err := json.Marshal(state)
		if err == nil {
			_, err = file.Write(b)
		}
		if err == nil {
			err = fd.Seal(file)
		}
		if err != nil {
			return fault.Wrap(fault.Internal, "write state for", "hooks", err, "")
		}
	}
	return nil
}

// explain adds what the hooks have printed to a failure of one.
func (h *inside) explain(err error) error {
	if h.output == nil {
		return err
	}
	return plan.HookSaid(err, h.output)
}

// listen opens the container's answer; the result waits for it, which is an
// error when a hook has failed.
func (c *container) listen(s *specs.Spec) (await func() error, err error) {
	if !answers(s) {
		return func() error { return nil }, nil
	}
	n, err := openNamed(filepath.Join(c.dir, "answer"), unix.O_RDONLY|unix.O_NONBLOCK, "open")
	if err != nil {
		return nil, err
	}
	return func() error {
		defer unix.Close(n)
		data := make([]byte, 1)
		for {
			poll := []unix.PollFd{{Fd: int32(n), Events: unix.POLLIN}}
			if _, err := unix.Poll(poll, -1); err == unix.EINTR {
				continue
			}
			got, err := unix.Read(n, data)
			switch {
			case err == unix.EINTR || err == unix.EAGAIN:
				continue
			case got == 1:
				return fault.New(fault.Internal, "start container", c.ID, "a startContainer hook failed or took longer than its timeout", "its output is the container's")
			}
			return nil // the program runs, or could not be run
		}
	}, nil
}
