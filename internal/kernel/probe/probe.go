// Package probe asks the kernel about a feature by trying it on the real file
// system, never by version or file system type.
package probe

import (
	"os"

	"fief/internal/kernel/mnt"
	"fief/internal/words/fault"
)

// Verdict is the outcome of a trial.
type Verdict uint8

// The verdicts. Unknown, the zero value, is a trial that failed for another
// reason than lack of support: it says nothing and must not be remembered.
const (
	Unknown Verdict = iota
	Yes
	No
)

// String returns "yes", "no" or "unknown".
func (v Verdict) String() string { return [...]string{"unknown", "yes", "no"}[v] }

// Answer is what a trial said. Err is the failure behind No and Unknown.
type Answer struct {
	Feature string // "idmapped overlay layers by descriptor"
	Since   string // the first mainline kernel that has it: "6.15"
	Verdict Verdict
	Err     error
}

// Why says in words why the answer is not yes; empty for yes.
func (a Answer) Why() string {
	switch a.Verdict {
	case Yes:
		return ""
	case No:
		return a.Feature + " (Linux " + a.Since + "): " + a.Err.Error()
	}
	return a.Feature + ": could not be tried: " + a.Err.Error()
}

// Try runs a trial. It is No when the trial failed with class Unsupported or
// Denied, as no repetition will change that; another failure (no space, no
// descriptors, a broken disk) is Unknown.
func Try(feature, since string, trial func() error) Answer {
	err := trial()
	a := Answer{Feature: feature, Since: since, Err: err}
	switch {
	case err == nil:
		a.Verdict = Yes
	case fault.Is(err, fault.Unsupported), fault.Is(err, fault.Denied):
		a.Verdict = No
	}
	return a
}

// Idmap asks whether dir's file system can be mounted with mapped ids. userns
// is any user namespace with maps other than the initial one.
func Idmap(dir, userns *os.File) Answer {
	return Try("idmapped mounts", "5.12", func() error {
		f, err := mnt.Clone(dir, false)
		if err != nil {
			return err
		}
		defer f.Close()
		return mnt.Idmap(f, userns, false)
	})
}
