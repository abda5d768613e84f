package fast

import (
	"errors"
	"os"
	"strings"

	"fief/internal/door/native/wire"
	"fief/internal/words/fault"
)

// Run does what words ask for when they can go the short way; handled is false
// when they must go the long way: flags that need the client, an image that is
// to be pulled, no daemon. Nothing has happened then. redial reaches the
// daemon at a socket, and starts one when there is none.
func Run(words []string, redial func(socket string) (*wire.Conn, error)) (code int, handled bool) {
	l, ok := Scan(words)
	if !ok {
		return 0, false
	}
	if l.Caller && os.Getenv("SUDO_UID") != "" {
		return 0, false // whose ids those are is in the environment
	}
	if l.Host == "" {
		l.Host = os.Getenv("FIEF_HOST")
	}
	socket, err := Socket(l.Host)
	if err != nil {
		return 0, false
	}
	dir, err := os.Getwd()
	if err != nil {
		return 0, false
	}
	conn, err := wire.Dial(socket)
	if err != nil {
		return 0, false
	}
	c := Call{
		Conn: conn, Exec: l.Exec, Detach: l.Detach, SigProxy: true,
		Redial: func() (*wire.Conn, error) { return redial(socket) },
	}
	verb := wire.RunArgs
	if l.Exec {
		verb = wire.ExecArgs
	}
	code, err = c.Follow(verb, wire.Launch{Dir: dir, Args: l.Args}.Encode(nil))
	if MissingImage(err) {
		return 0, false
	}
	if err != nil {
		return Complain(err, l.Exec), true
	}
	return code, true
}

// MissingImage reports whether err is the daemon's answer to a container of an
// image that it does not have.
func MissingImage(err error) bool {
	return err != nil && fault.Is(err, fault.NotFound) &&
		(strings.HasPrefix(err.Error(), "No such image") || strings.HasPrefix(err.Error(), "image with reference")) // of another platform
}

// Complain prints the failure of a run or exec and returns the exit status for
// it: what the fault says, else 125 for run and 1 for exec, as docker does.
func Complain(err error, exec bool) int {
	text, code := "", fault.ExitCodeOf(err)
	if !exec {
		text = "fief: "
	} else if code == 125 {
		code = 1
	}
	var refused *wire.Refusal
	if errors.As(err, &refused) {
		text += "Error response from daemon: "
	}
	text += err.Error() + "\n"
	if hint := fault.HintOf(err); hint != "" {
		text += hint + "\n"
	}
	os.Stderr.WriteString(text)
	return code
}
