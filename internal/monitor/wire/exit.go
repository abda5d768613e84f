package wire

import (
	"strconv"
	"strings"
	"time"

	"fief/internal/words/fault"
)

// ExitFile is the name, in the run directory, of what a monitor leaves behind
// when its container has ended. SocketName is where it listens until then.
const (
	ExitFile   = "exit"
	SocketName = "mon.sock"
)

// FormatExit is the content of the exit file: one line with exit code, signal
// and time in Unix nanoseconds.
func FormatExit(e *Exited) []byte {
	b := strconv.AppendInt(nil, int64(e.Code), 10)
	b = append(b, ' ')
	b = strconv.AppendUint(b, uint64(e.Signal), 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, e.At, 10)
	return append(b, '\n')
}

// ParseExit reads what FormatExit wrote.
func ParseExit(content []byte) (code, signal int, at time.Time, err error) {
	bad := fault.New(fault.Corrupt, "read", "exit file", "want \"CODE SIGNAL NANOSECONDS\"", "")
	line, ok := strings.CutSuffix(string(content), "\n")
	words := strings.Split(line, " ")
	if !ok || len(words) != 3 {
		return 0, 0, time.Time{}, bad
	}
	c, err1 := strconv.ParseInt(words[0], 10, 32)
	s, err2 := strconv.ParseUint(words[1], 10, 8)
	n, err3 := strconv.ParseInt(words[2], 10, 64)
	if err1 != nil || err2 != nil || err3 != nil {
		return 0, 0, time.Time{}, bad
	}
	return int(c), int(s), time.Unix(0, n), nil
}
