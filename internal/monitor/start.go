package monitor

import (
	"context"
	"os"
	"runtime"

	"fief/internal/monitor/wire"
	"fief/internal/words/fault"
)

// Run is a container to start. Dir is its run directory, which exists; the
// monitor makes mon.sock and exit in it.
type Run struct {
	ID        string
	Dir       string
	Log       Log
	TTY       bool
	OpenStdin bool      // else stdin is /dev/null
	StdinOnce bool      // the first attached stdin that ends closes the container's
	Console   [2]uint16 // rows, columns; zeroes: unknown
	Plan      []byte    // encoded
	Names     []string  // plan.Files: what each slot of the descriptor table is for
	PlanFiles []*os.File
	Attach    []Attach
	Net       Net
	Box       *os.File // where the sockets of a name server are put, with a Net.Port
	Offer     *os.File // by way of which the namespace is offered, with Net.Wait
}

// Net connects the container's network namespace: see wire.Net.
type Net = wire.Net

// NetDevice is a part of Net.
type NetDevice = wire.NetDevice

// Log says where a container's output is noted: see wire.Log.
type Log = wire.Log

// Exec is another process to start in the container. Fields as in Run.
type Exec struct {
	ID        string
	TTY       bool
	OpenStdin bool
	Console   [2]uint16
	Plan      []byte
	Names     []string
	PlanFiles []*os.File
	Attach    []Attach
}

// Attach connects a client with a process. A nil file is not attached. The
// monitor gets duplicates; the caller closes its own. When Alive is a socket
// the monitor writes one byte to it, one of wire's Part constants, before it
// closes it, after all other descriptors of the attachment.
type Attach struct {
	Stdin, Stdout, Stderr *os.File
	Alive                 *os.File // its end of file drops the attachment
	DetachKeys            []byte   // empty: ctrl-p ctrl-q with a terminal, else none
}

// Start makes the monitor the owner of a container and starts its program.
// PlanFiles are the descriptors of the plan in slot order, nil where Names says
// "stdin", "stdout", "stderr" or "pidfd", which the monitor makes. Clients in
// Attach get every byte from the first. A *plan.Failure says which step failed
// and why; after any failure the monitor is good for nothing but Close.
func (m *Monitor) Start(ctx context.Context, r Run) (pid int, err error) {
	p := wire.Proc{TTY: r.TTY, OpenStdin: r.OpenStdin, StdinOnce: r.StdinOnce, Rows: r.Console[0], Cols: r.Console[1],
		Plan: r.Plan}
	files, err := fill(&p, r.Names, r.PlanFiles, r.Attach)
	if err != nil {
		return 0, err
	}
	if r.Net.Port != 0 {
		files = append(files, r.Box)
	}
	if r.Net.Wait {
		files = append(files, r.Offer)
	}
	return m.do(ctx, &wire.Start{ID: r.ID, Dir: r.Dir, Log: r.Log, Proc: p, Net: r.Net}, files)
}

// Exec starts another process in the container. Its end comes through Exits.
func (m *Monitor) Exec(ctx context.Context, e Exec) (pid int, err error) {
	p := wire.Proc{TTY: e.TTY, OpenStdin: e.OpenStdin, StdinOnce: true, Rows: e.Console[0], Cols: e.Console[1],
		Plan: e.Plan}
	files, err := fill(&p, e.Names, e.PlanFiles, e.Attach)
	if err != nil {
		return 0, err
	}
	return m.do(ctx, &wire.Exec{ID: e.ID, Proc: p}, files)
}

// Attach connects a client with a running process: the container's own (target
// empty) or an exec session's. It gets all output from the moment this returns.
func (m *Monitor) Attach(ctx context.Context, target string, a Attach) error {
	client, files := attachment(a)
	_, err := m.do(ctx, &wire.Attach{Target: target, Client: client}, files)
	return err
}

var slots = map[string]wire.Slot{
	"stdin": wire.SlotStdin, "stdout": wire.SlotStdout, "stderr": wire.SlotStderr, "pidfd": wire.SlotPIDFD,
}

// fill sets the slots and attachments of a process and lists the descriptors
// to send along.
func fill(p *wire.Proc, names []string, planFiles []*os.File, clients []Attach) ([]*os.File, error) {
	if len(names) != len(planFiles) {
		return nil, fault.New(fault.Internal, "start", "process", "names and descriptors of the plan differ in number", "")
	}
	var files []*os.File
	for i, f := range planFiles {
		slot, made := slots[names[i]]
		if f != nil {
			files = append(files, f)
			slot = wire.SlotFile
		} else if !made {
			return nil, fault.New(fault.Internal, "start", "process", "no descriptor for "+names[i], "")
		}
		p.Slots = append(p.Slots, slot)
	}
	for _, a := range clients {
		client, more := attachment(a)
		p.Attach = append(p.Attach, client)
		files = append(files, more...)
	}
	return files, nil
}

func attachment(a Attach) (wire.Attachment, []*os.File) {
	out := wire.Attachment{Keys: a.DetachKeys}
	var files []*os.File
	for i, f := range [...]*os.File{a.Stdin, a.Stdout, a.Stderr, a.Alive} {
		if f != nil {
			out.Has |= 1 << i
			files = append(files, f)
		}
	}
	return out, files
}

// rawFD returns the descriptor of f as it is: (*os.File).Fd would make it
// block, and the caller's may be in its poller.
func rawFD(f *os.File) uintptr {
	fd := ^uintptr(0)
	if raw, err := f.SyscallConn(); err == nil {
		raw.Control(func(n uintptr) { fd = n })
	}
	return fd
}

func keepAlive(f *os.File) { runtime.KeepAlive(f) }
