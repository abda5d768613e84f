package record

// CheckState is what came of a check.
type CheckState string

// The states. A warning leaves fief working, but less well or for fewer
// containers; a failure does not.
const (
	CheckOK      CheckState = "ok"
	CheckWarn    CheckState = "warn"
	CheckFail    CheckState = "fail"
	CheckInfo    CheckState = "info"
	CheckSkipped CheckState = "skipped" // it could not be tried; Why says what for
)

// Check is one thing that `fief check` looked at.
type Check struct {
	Group string // "kernel", "ids" …
	Name  string
	State CheckState
	Found string `json:",omitempty"` // what there is: a value, a file, an errno
	Why   string `json:",omitempty"` // what it means
	Fix   string `json:",omitempty"` // what to do about it
}
