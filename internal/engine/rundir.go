package engine

import (
	"encoding/json"
	"os"
	"path/filepath"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// The run directory of a container, <exec-root>/c/<id>, is on a tmpfs and
// holds what a new daemon needs to find a running container again: record.json
// here, and the monitor's mon.sock and exit beside it. docs/state.md shows it.
const runRecord = "record.json"

func (e *Engine) runDir(id string) string { return filepath.Join(e.cfg.ExecRoot, "c", id) }

// makeRun makes a container's run directory, which is gone after a reboot.
func (e *Engine) makeRun(id string) error {
	err := os.Mkdir(e.runDir(id), 0o700)
	if os.IsExist(err) {
		return nil
	}
	return fault.Wrap(classOf(err), "create", e.runDir(id), err, "")
}

// writeRun writes a record into the run directory, whole or not at all. There
// is no fsync: the directory does not outlive the machine.
func (e *Engine) writeRun(rec record.Container) error {
	b, err := json.Marshal(rec)
	if err != nil {
		return fault.Wrap(fault.Internal, "encode record of", rec.ID, err, "")
	}
	if err := e.makeRun(rec.ID); err != nil {
		return err
	}
	path := filepath.Join(e.runDir(rec.ID), runRecord)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fault.Wrap(classOf(err), "write", path, err, "")
	}
	return fault.Wrap(fault.Internal, "replace", path, os.Rename(path+".new", path), "")
}

// readRuns returns the records of all run directories; one that does not parse
// is skipped, since its monitor may still be found by its socket.
func (e *Engine) readRuns() (map[string]record.Container, error) {
	dirs, err := os.ReadDir(filepath.Join(e.cfg.ExecRoot, "c"))
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "read", e.cfg.ExecRoot, err, "")
	}
	out := map[string]record.Container{}
	for _, d := range dirs {
		var rec record.Container
		b, err := os.ReadFile(filepath.Join(e.runDir(d.Name()), runRecord))
		if err == nil && json.Unmarshal(b, &rec) == nil && rec.ID == d.Name() {
			out[rec.ID] = rec
		}
	}
	return out, nil
}

func (e *Engine) dropRun(id string) { os.RemoveAll(e.runDir(id)) }

func classOf(err error) fault.Class {
	switch {
	case os.IsNotExist(err):
		return fault.NotFound
	case os.IsPermission(err):
		return fault.Denied
	}
	return fault.Internal
}
