package engine

import (
	"fief/internal/words/ask"
	"fief/internal/words/fault"
)

// refuse turns down what a door let through and no room could do: an ask that
// is not carried out is an error, never left out.
func (e *Engine) refuse(a ask.Container) error {
	if err := e.checkRuntime(first(a.Runtime, e.cfg.Runtime)); err != nil {
		return err
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
