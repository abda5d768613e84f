package engine

import (
	"slices"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
)

// ownRuntime is the name of fief's own launch path, the only one that can run
// containers so far.
const ownRuntime = "fief"

// refuse turns down what a door let through and no room could do: an ask that
// is not carried out is an error, never left out.
func (e *Engine) refuse(a ask.Container) error {
	if r := first(a.Runtime, e.cfg.Runtime); r != ownRuntime {
		if !slices.Contains(e.cfg.Runtimes, r) {
			return fault.Say(fault.Invalid, "unknown or invalid runtime name: "+r)
		}
		return fault.New(fault.Unsupported, "use runtime", r, "other runtimes are registered, but cannot run containers yet",
			"leave out --runtime, or use --runtime fief")
	}
	if err := e.rooms.Layers.CheckWay(a.Shift); err != nil {
		return err
	}
	if a.StopSignal != "" {
		if _, err := parseSignal(a.StopSignal); err != nil {
			return err
		}
	}
	if a.AutoRemove && a.Restart.Restarts() {
		return fault.Say(fault.Invalid, "can't create 'AutoRemove' container with restart policy")
	}
	return a.Restart.Check()
}
