package native

import (
	"fmt"
	"regexp"
	"slices"

	"fief/internal/door/native/wire"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// changes answers the verbs that change a container. A client that goes does
// not interrupt them.
func (k *call) changes(v wire.Verb) (any, error) {
	switch v {
	case wire.Create:
		return k.create()
	case wire.Start:
		n, err := decode[wire.Name](k)
		if err != nil {
			return nil, err
		}
		return nil, done(k.engine.Start(k.lasting(), n.Name))
	case wire.Stop, wire.Restart:
		s, err := decode[wire.StopCall](k)
		if err != nil {
			return nil, err
		}
		if v == wire.Restart {
			return nil, k.engine.Restart(k.lasting(), s.ID, s.Stop)
		}
		return nil, done(k.engine.Stop(k.lasting(), s.ID, s.Stop))
	case wire.Kill:
		s, err := decode[wire.KillCall](k)
		if err != nil {
			return nil, err
		}
		return nil, k.engine.Kill(k.lasting(), s.ID, s.Signal)
	case wire.Remove:
		r, err := decode[wire.RemoveCall](k)
		if err != nil {
			return nil, err
		}
		return nil, k.engine.Remove(k.lasting(), r.Name, ask.Remove{Force: r.Force, Volumes: r.Volumes})
	case wire.Rename:
		r, err := decode[wire.RenameCall](k)
		if err != nil {
			return nil, err
		}
		return nil, k.engine.Rename(k.lasting(), r.Old, r.New)
	}
	return nil, fault.New(fault.Unsupported, "answer request", "", fmt.Sprintf("verb %d is unknown", v), "fief is newer than fiefd: restart the daemon")
}

// done takes "nothing to do" as done.
func done(err error) error {
	if fault.Is(err, fault.NotModified) {
		return nil
	}
	return err
}

func (k *call) create() (any, error) {
	packed, err := decode[wire.Container](k)
	if err != nil {
		return nil, err
	}
	c, err := k.unpack(packed)
	if err != nil {
		return nil, err
	}
	made, err := k.engine.Create(k.lasting(), c)
	return wire.CreatedReply{ID: made.ID, Warnings: made.Warnings}, err
}

// reads answers the verbs that only look.
func (k *call) reads(v wire.Verb) (any, error) {
	switch v {
	case wire.List:
		return k.list()
	case wire.Info:
		return k.engine.Info(k.ctx)
	case wire.Events:
		w, err := decode[ask.Events](k)
		if err != nil {
			return nil, err
		}
		return nil, k.engine.Events(k.ctx, w, func(e record.Event) error { return k.sendJSON(wire.Event, e) })
	case wire.Logs:
		return nil, k.logs()
	case wire.Top:
		t, err := decode[wire.TopCall](k)
		if err != nil {
			return nil, err
		}
		return k.engine.Top(k.ctx, t.ID, t.PsArgs)
	case wire.Plan:
		packed, err := decode[wire.Container](k)
		if err != nil {
			return nil, err
		}
		c, err := k.unpack(packed)
		if err != nil {
			return nil, err
		}
		return k.engine.Plan(k.ctx, c)
	}
	n, err := decode[wire.Name](k)
	if err != nil {
		return nil, err
	}
	if v == wire.Size {
		return k.size(n.Name)
	}
	return k.engine.Inspect(k.ctx, n.Name)
}

// nameFilters compiles the values of a list's filter for names.
func nameFilters(asked []string) ([]*regexp.Regexp, error) {
	var names []*regexp.Regexp
	for _, n := range asked {
		re, err := regexp.Compile(n)
		if err != nil {
			return nil, fault.Say(fault.Invalid, "invalid filter 'name="+n+"'")
		}
		names = append(names, re)
	}
	return names, nil
}

func (k *call) list() (any, error) {
	l, err := decode[wire.ListCall](k)
	if err != nil {
		return nil, err
	}
	names, err := nameFilters(l.Names)
	if err != nil {
		return nil, err
	}
	all, err := k.engine.List(k.ctx)
	if err != nil || len(names) == 0 {
		return all, err
	}
	return slices.DeleteFunc(slices.Clone(all), func(c record.Container) bool {
		return !slices.ContainsFunc(names, func(re *regexp.Regexp) bool { return re.MatchString(c.Name) || re.MatchString("/"+c.Name) })
	}), nil
}

func (k *call) healthcheck() (any, error) {
	n, err := decode[wire.Name](k)
	if err != nil {
		return nil, err
	}
	h, ok := k.engine.(checker)
	if !ok {
		return nil, fault.New(fault.Unsupported, "check the health of", n.Name, "this daemon checks none", "")
	}
	return h.Healthcheck(k.ctx, n.Name)
}

func (k *call) updateRestart() (any, error) {
	u, err := decode[wire.RestartCall](k)
	if err != nil {
		return nil, err
	}
	h, ok := k.engine.(checker)
	if !ok {
		return nil, fault.New(fault.Unsupported, "change the restart policy of", u.ID, "this daemon has none", "")
	}
	return nil, h.UpdateRestart(k.lasting(), u.ID, u.Policy)
}

func (k *call) size(id string) (any, error) {
	s, ok := k.engine.(sizer)
	if !ok {
		return nil, fault.New(fault.Unsupported, "measure", id, "this daemon does not measure containers", "leave out --size")
	}
	upper, whole, err := s.Size(k.ctx, id)
	return wire.SizeReply{Upper: upper, Whole: whole}, err
}
