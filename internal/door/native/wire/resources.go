package wire

import "fief/internal/words/record"

// The verbs about what containers may use and use.
const (
	Stats           Verb = 80 + iota // (Name) → record.Stats
	UpdateResources                  // (ResourcesCall) → []string: warnings
	Pause                            // (Name)
	Unpause                          // (Name)
)

// ResourcesCall changes limits of a container: those that are named.
type ResourcesCall struct {
	ID        string
	Resources record.Resources
}
