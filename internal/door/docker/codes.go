package docker

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"fief/internal/words/fault"
)

// statusOf is this door's only table from failure to HTTP status. The Docker
// clients turn the status back into their error kinds: 404 makes `docker run`
// pull, 304 is success, 409 is a conflict.
func statusOf(err error) int {
	if errors.Is(err, context.Canceled) {
		return 499 // client closed request; nobody reads it, but logs do
	}
	switch fault.ClassOf(err) {
	case fault.Invalid:
		return http.StatusBadRequest
	case fault.NotFound:
		return http.StatusNotFound
	case fault.Exists, fault.Conflict, fault.Busy:
		return http.StatusConflict
	case fault.Denied:
		return http.StatusForbidden
	case fault.Unsupported:
		return http.StatusNotImplemented
	case fault.Exhausted:
		return http.StatusInsufficientStorage
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	case fault.Canceled:
		return 499
	case fault.NotModified:
		return http.StatusNotModified
	case fault.Internal, fault.Corrupt:
		return http.StatusInternalServerError
	}
	return http.StatusInternalServerError
}

// message is the error as a client prints it, the hint on a line of its own.
func message(err error) string {
	if hint := fault.HintOf(err); hint != "" {
		return err.Error() + "\n" + hint
	}
	return err.Error()
}

func invalid(format string, a ...any) error {
	return fault.Say(fault.Invalid, fmt.Sprintf(format, a...))
}

func notFound(format string, a ...any) error {
	return fault.Say(fault.NotFound, fmt.Sprintf(format, a...))
}

// refuse says that what was asked for cannot be done, and what to do instead.
func refuse(what, hint string) error {
	return &fault.Error{Class: fault.Unsupported, Cause: errors.New(what + " is not supported"), Hint: hint}
}
