// Package fault is the one shape of an error in fief: what was being done,
// to what, why it failed, which class of failure it is, and what the reader
// can do about it. Rooms make faults; doors turn the class into an HTTP
// status, an exit code or a gRPC code, and nothing else looks at the text.
package fault

import (
	"errors"
	"strings"
)

// Class says what kind of failure a fault is. The set is closed: a door has a
// table with one row for each.
type Class uint8

// The classes. Internal is the zero value, so that an unclassified error is
// never mistaken for the caller's mistake.
const (
	Internal    Class = iota // a defect or an unexpected refusal by the kernel
	Invalid                  // the request is wrong and will stay wrong
	NotFound                 // the named object does not exist
	Exists                   // the name is taken
	Conflict                 // the object's state forbids the operation
	Busy                     // in use by another operation; may be repeated
	Denied                   // not permitted
	Unsupported              // this kernel, file system or build cannot do it
	Exhausted                // ids, space, descriptors or another resource ran out
	Unavailable              // a peer (registry, daemon, monitor) does not answer
	Canceled                 // the caller gave up
	Corrupt                  // stored or received data does not verify
	NotModified              // nothing to do: the object is already in that state
)

var names = [...]string{
	"internal", "invalid", "not found", "exists", "conflict", "busy", "denied",
	"unsupported", "exhausted", "unavailable", "canceled", "corrupt", "not modified",
}

// String returns the class in lower-case words.
func (c Class) String() string {
	if int(c) < len(names) {
		return names[c]
	}
	return "internal"
}

// Error is a fault. Op is a verb phrase without "cannot" ("unpack layer"),
// Object names what it was done to, Cause is the underlying error or nil, Hint
// tells the reader what to do and is empty when there is nothing useful to say.
// ExitCode is the exit status a command line must end with (125, 126, 127 …),
// zero when the class alone decides.
type Error struct {
	Class    Class
	Op       string
	Object   string
	Cause    error
	Hint     string
	ExitCode int
}

// New makes a fault whose cause is a fixed text.
func New(class Class, op, object, cause, hint string) *Error {
	return &Error{Class: class, Op: op, Object: object, Cause: errors.New(cause), Hint: hint}
}

// Wrap makes a fault around cause; it returns nil when cause is nil.
func Wrap(class Class, op, object string, cause error, hint string) error {
	if cause == nil {
		return nil
	}
	return &Error{Class: class, Op: op, Object: object, Cause: cause, Hint: hint}
}

// Say makes a fault whose whole text is message, for the sentences that
// clients of Docker match literally. The class still decides the code.
func Say(class Class, message string) *Error {
	return &Error{Class: class, Cause: errors.New(message)}
}

// Error prints "cannot OP OBJECT: CAUSE"; without Op only the cause. The hint
// is not part of it: doors print it on a line of its own.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString("cannot ")
		b.WriteString(e.Op)
		if e.Object != "" {
			b.WriteByte(' ')
			b.WriteString(e.Object)
		}
	}
	if e.Cause != nil {
		if b.Len() > 0 {
			b.WriteString(": ")
		}
		b.WriteString(e.Cause.Error())
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// ClassOf returns the class of the outermost fault in err's chain, Internal
// when there is none.
func ClassOf(err error) Class {
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	return Internal
}

// HintOf returns the first non-empty hint in err's chain.
func HintOf(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Cause
	}
	return ""
}

// ExitCodeOf returns the first exit code set in err's chain, 125 (the engine
// itself failed, docker-run(1)) when there is none, 0 for nil.
func ExitCodeOf(err error) int {
	if err == nil {
		return 0
	}
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			break
		}
		if e.ExitCode != 0 {
			return e.ExitCode
		}
		err = e.Cause
	}
	return 125
}

// Is reports whether err's class is c.
func Is(err error, c Class) bool { return err != nil && ClassOf(err) == c }
