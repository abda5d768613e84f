package engine

import "time"

// trace notes when each doorway was passed. A nil trace notes nothing.
type trace struct {
	from   time.Time
	stages []Stage
}

func newTrace(wanted bool) *trace {
	if !wanted {
		return nil
	}
	return &trace{from: time.Now()}
}

func (t *trace) mark(name string) {
	if t != nil {
		t.stages = append(t.stages, Stage{name, time.Since(t.from)})
	}
}

func (t *trace) list() []Stage {
	if t == nil {
		return nil
	}
	return t.stages
}
