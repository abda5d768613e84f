package record

import "time"

// Health is how a container's health is checked, as an image's config says it; see
// ask.Health.
type Health struct {
	Test          []string      `json:",omitempty"`
	Interval      time.Duration `json:",omitempty"`
	Timeout       time.Duration `json:",omitempty"`
	StartPeriod   time.Duration `json:",omitempty"`
	StartInterval time.Duration `json:",omitempty"`
	Retries       int           `json:",omitempty"`
}

// Probes reports whether there is something to run.
func (h *Health) Probes() bool { return h != nil && len(h.Test) > 1 && h.Test[0] != "NONE" }

// The states of a container whose health is checked, in Docker's words.
const (
	HealthStarting = "starting"
	Healthy        = "healthy"
	Unhealthy      = "unhealthy"
)

// HealthState is what probes have found. Log is the last five, oldest first.
type HealthState struct {
	Status        string
	FailingStreak int
	Log           []HealthResult
}

// HealthResult is the result of one probe. ExitCode is -1 when it could not be
// started or took too long; Output is its first 4 KiB.
type HealthResult struct {
	Start, End time.Time
	ExitCode   int
	Output     string
}

// HealthOf is the state of a container's health, "none" when it is not checked.
func (c Container) HealthOf() string {
	if c.State.Health == nil {
		return "none"
	}
	return c.State.Health.Status
}

// HealthNote is what the STATUS column adds for a running container; empty when
// its health is not checked.
func (s State) HealthNote() string {
	switch {
	case s.Health == nil:
		return ""
	case s.Health.Status == HealthStarting:
		return " (health: starting)"
	}
	return " (" + s.Health.Status + ")"
}
