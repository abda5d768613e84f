package ask

import (
	"time"

	"fief/internal/words/fault"
)

// Health is how a container's health is checked. Test is {"NONE"}, or "CMD" or
// "CMD-SHELL" with what to run; what is empty or zero is the image's, or else
// Docker's default. Record types have the same fields.
type Health struct {
	Test                                          []string
	Interval, Timeout, StartPeriod, StartInterval time.Duration
	Retries                                       int
}

// Check refuses what Docker refuses, in its words. Nil asks for nothing.
func (h *Health) Check() error {
	if h == nil {
		return nil
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"Interval", h.Interval}, {"Timeout", h.Timeout}, {"StartPeriod", h.StartPeriod}, {"StartInterval", h.StartInterval},
	} {
		if d.value != 0 && d.value < time.Millisecond {
			return fault.Say(fault.Invalid, d.name+" in Healthcheck cannot be less than 1ms")
		}
	}
	if h.Retries < 0 {
		return fault.Say(fault.Invalid, "Retries in Healthcheck cannot be negative")
	}
	if len(h.Test) == 0 {
		return nil
	}
	switch kind := h.Test[0]; {
	case kind == "NONE":
	case (kind == "CMD" || kind == "CMD-SHELL") && len(h.Test) > 1:
	default:
		return fault.New(fault.Invalid, "read", "Healthcheck", "its Test is none of NONE, CMD and CMD-SHELL with a command", "")
	}
	return nil
}
