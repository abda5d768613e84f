package engine

// undo is the way back from a half-done verb: what was acquired, in order.
type undo struct{ steps []func() }

// then adds the reverse of what was just done.
func (u *undo) then(step func()) { u.steps = append(u.steps, step) }

// unless runs the reverses, last first, when *err is set. Deferred by the verb.
func (u *undo) unless(err *error) {
	if *err == nil {
		return
	}
	for i := len(u.steps) - 1; i >= 0; i-- {
		u.steps[i]()
	}
}
