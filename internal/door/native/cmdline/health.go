package cmdline

import (
	"time"

	"fief/internal/words/ask"
)

// healthy reads the flags of health checks, with docker's refusals.
func (o *RunOptions) healthy(r *Run, _ Client) error {
	h := ask.Health{Interval: o.healthInterval, Timeout: o.healthTimeout, StartPeriod: o.healthStartPeriod, StartInterval: o.healthStartInterval, Retries: o.healthRetries}
	asked := o.healthCmd != "" || h.Interval != 0 || h.Timeout != 0 || h.StartPeriod != 0 || h.StartInterval != 0 || h.Retries != 0
	if o.noHealthcheck {
		if asked {
			return conflict("--no-healthcheck conflicts with --health-* options")
		}
		r.Ask.Health = &ask.Health{Test: []string{"NONE"}}
		return nil
	}
	if !asked {
		return nil
	}
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{
		{"--health-interval", h.Interval}, {"--health-timeout", h.Timeout}, {"--health-retries", time.Duration(h.Retries)},
		{"--health-start-period", h.StartPeriod}, {"--health-start-interval", h.StartInterval},
	} {
		if d.value < 0 {
			return conflict(d.flag + " cannot be negative")
		}
	}
	if o.healthCmd != "" {
		h.Test = []string{"CMD-SHELL", o.healthCmd}
	}
	r.Ask.Health = &h
	return nil
}
