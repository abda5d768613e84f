package wire

// The verbs about how containers fare.
const (
	Healthcheck Verb = 80 + iota // (Name) → record.HealthResult
)
