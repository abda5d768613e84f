package systemd

import (
	"errors"

	"fief/internal/words/fault"
)

// The refusals that mean something here (org.freedesktop.systemd1(5)).
const (
	unitExists = "org.freedesktop.systemd1.UnitExists"
	noSuchUnit = "org.freedesktop.systemd1.NoSuchUnit"
	notLoaded  = "org.freedesktop.systemd1.UnitNotLoaded"
)

// StartScope makes a transient scope around a process and waits until it is in
// force. The scope lives as long as a process is in it. A scope of that name that
// has failed is cleared away first; one that lives is an Exists fault.
func (b *Bus) StartScope(s Scope, pid int, description string, more []Property) error {
	list := append([]Property{
		{"Description", Text(description)}, {"Slice", Text(s.Slice)}, {"Delegate", Flag(true)},
		{"DefaultDependencies", Flag(false)}, {"PIDs", PIDs{uint32(pid)}},
		{"MemoryAccounting", Flag(true)}, {"CPUAccounting", Flag(true)}, {"IOAccounting", Flag(true)}, {"TasksAccounting", Flag(true)},
	}, more...)
	return b.start(s.Unit, list)
}

func (b *Bus) start(unit string, list []Property) error {
	var w writer
	w.text(unit)
	w.text("fail") // rather than replace what is queued for that unit
	properties(&w, list)
	w.array(8, func() {}) // no other units
	run := func() error { return b.job("StartTransientUnit", "ssa(sv)a(sa(sv))", w.b) }
	err := run()
	if refused(err, unitExists) && b.reset(unit) == nil {
		err = run()
	}
	switch {
	case err == nil:
		return nil
	case refused(err, unitExists):
		return fault.Wrap(fault.Exists, "start unit", unit, err, "stop it first: systemctl stop "+unit)
	case asRefusal(err):
		return fault.Wrap(fault.Unsupported, "start unit", unit, err, "")
	}
	return err
}

// Set changes properties of a unit that runs, until it ends.
func (b *Bus) Set(unit string, list []Property) error {
	if len(list) == 0 {
		return nil
	}
	var w writer
	w.text(unit)
	w.u32(1) // until it ends
	properties(&w, list)
	_, err := b.manager("SetUnitProperties", "sba(sv)", w.b)
	switch {
	case refused(err, noSuchUnit):
		return fault.Wrap(fault.NotFound, "change unit", unit, err, "")
	case asRefusal(err):
		return fault.Wrap(fault.Unsupported, "change unit", unit, err, "")
	}
	return err
}

// Stop ends a unit with all that is in it, and forgets that it failed. One that
// is not there is no error.
func (b *Bus) Stop(unit string) error {
	var w writer
	w.text(unit)
	w.text("replace")
	err := b.job("StopUnit", "ss", w.b)
	if refused(err, noSuchUnit) || refused(err, notLoaded) {
		return nil
	}
	b.reset(unit) // gone already, if it has not failed
	if asRefusal(err) {
		return fault.Wrap(fault.Internal, "stop unit", unit, err, "")
	}
	return err
}

// reset forgets that a unit has failed.
func (b *Bus) reset(unit string) error {
	var w writer
	w.text(unit)
	_, err := b.manager("ResetFailedUnit", "s", w.b)
	return err
}

// job calls a method that queues a job and waits for its result.
func (b *Bus) job(member, types string, body []byte) error {
	m, err := b.manager(member, types, body)
	if err != nil {
		return err
	}
	t := m.texts()
	if len(t) == 0 {
		return lost(member, errShort)
	}
	result, err := b.done(t[0])
	if err == nil && result != "done" {
		return fault.New(fault.Internal, "ask systemd to", member, "the job is "+result, "see journalctl")
	}
	return err
}

func asRefusal(err error) bool {
	var r *Refusal
	return errors.As(err, &r)
}
