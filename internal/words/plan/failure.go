package plan

import (
	"strconv"
	"syscall"
)

// Failure is a step that failed: what a child or its parent reports. Step is an
// index into Plan.Steps, Call the index of the system call in it. Errno 0 means
// that the child was killed in that step.
type Failure struct {
	Step  int
	Call  int
	Errno syscall.Errno
}

// Error names step and errno by number: only Plan.Explain has the words.
func (f *Failure) Error() string {
	text := "killed"
	if f.Errno != 0 {
		text = f.Errno.Error()
	}
	return "launch step " + strconv.Itoa(f.Step) + ": " + text
}

// Unwrap returns the errno.
func (f *Failure) Unwrap() error {
	if f.Errno == 0 {
		return nil
	}
	return f.Errno
}
