package wire

import "fief/internal/words/ask"

// The verbs about how containers fare.
const (
	Healthcheck   Verb = 96 + iota // (Name) → record.HealthResult
	UpdateRestart                  // (RestartCall)
)

// RestartCall gives a container another restart policy.
type RestartCall struct {
	ID     string
	Policy ask.RestartPolicy
}
