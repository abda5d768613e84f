package proc

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// maxTable bounds the output of ps that is kept.
const maxTable = 16 << 20

// Top is what the host's ps prints of pids with psArgs, "-ef" when there are
// none. It shows host ids and host pids, as Docker's does. A process that ps
// was asked for and that has ended is left out.
//
// ps is told the pids as well, so that it need not read every process of the
// host; arguments that choose others make ps print their union, or refuse it
// as a contradiction, in which case it is asked without them. The table is cut
// to pids in any case.
func Top(ctx context.Context, pids []int, psArgs []string) (record.Top, error) {
	if len(psArgs) == 0 {
		psArgs = []string{"-ef"}
	}
	for _, arg := range psArgs {
		if strings.ContainsFunc(arg, unicode.IsControl) {
			return record.Top{}, fault.New(fault.Invalid, "list processes", "", "arguments of ps hold a control character", "")
		}
	}
	text, err := ps(ctx, slices.Concat(psArgs, []string{"-q" + joined(pids)}))
	if err != nil {
		text, err = ps(ctx, psArgs)
	}
	if err != nil {
		return record.Top{}, err
	}
	return table(text, pids)
}

func joined(pids []int) string {
	var b strings.Builder
	for i, pid := range pids {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(pid))
	}
	return b.String()
}

func ps(ctx context.Context, args []string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "ps", args...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	var out, say limited
	cmd.Stdout, cmd.Stderr = &out, &say
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return out.Bytes(), nil
	case ctx.Err() != nil:
		return nil, fault.Wrap(fault.Canceled, "list processes", "", ctx.Err(), "")
	case errors.Is(err, exec.ErrNotFound):
		return nil, fault.Wrap(fault.Unavailable, "list processes", "", err, "install ps on the host (Debian: procps)")
	case errors.As(err, &exit):
		first, _, _ := strings.Cut(strings.TrimSpace(say.String()), "\n")
		return nil, fault.New(fault.Invalid, "list processes", "", "ps: "+first, "")
	}
	return nil, fault.Wrap(fault.Internal, "list processes", "", err, "")
}

// limited keeps the first maxTable bytes.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	l.Buffer.Write(p[:min(len(p), maxTable-l.Len())])
	return len(p), nil
}

// table reads the output of ps: a line of titles, then a line for each
// process, whose last column may hold spaces.
func table(text []byte, pids []int) (record.Top, error) {
	var top record.Top
	column := -1
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0:
			continue
		case top.Titles == nil:
			top.Titles = fields
			if column = slices.Index(fields, "PID"); column < 0 {
				return record.Top{}, fault.Say(fault.Invalid, "Couldn't find PID field in ps output")
			}
			continue
		case len(fields) <= column:
			continue
		}
		// Lines of threads have "-" instead.
		pid, err := strconv.Atoi(fields[column])
		if err != nil && fields[column] != "-" {
			return record.Top{}, fault.Say(fault.Invalid, "Unexpected pid '"+fields[column]+"': "+err.Error())
		}
		if err == nil && slices.Contains(pids, pid) {
			top.Processes = append(top.Processes, row(fields, len(top.Titles)))
		}
	}
	if top.Titles == nil {
		return record.Top{}, fault.Say(fault.Invalid, "Couldn't find PID field in ps output")
	}
	return top, nil
}

// row brings a line to n columns: the surplus belongs to the last one.
func row(fields []string, n int) []string {
	if len(fields) <= n {
		return fields
	}
	return append(slices.Clone(fields[:n-1]), strings.Join(fields[n-1:], " "))
}
