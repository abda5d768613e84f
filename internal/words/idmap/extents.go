package idmap

import (
	"fmt"
	"slices"
	"strings"

	"fief/internal/words/fault"
)

// Extents are the lines of a uid_map or gid_map as the kernel keeps them:
// sorted by In and without overlap, but not merged, since where one ends
// matters to the namespaces below (see SplitAt).
type Extents []Span

// ParseExtents reads the text of /proc/PID/uid_map or gid_map
// (user_namespaces(7)). Outside ids that the reader's own namespace does not
// know are printed as 4294967295 by the kernel; such lines are left out.
// Errors are of class Corrupt.
func ParseExtents(text []byte) (Extents, error) {
	var out []Span
	for rest := string(text); rest != ""; {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		s, ok := spanOfLine(line)
		if !ok {
			return nil, fault.New(fault.Corrupt, "read id map line", fmt.Sprintf("%.64q", line), "it is not three numbers", "")
		}
		if s.Out != Max+1 {
			out = append(out, s)
		}
	}
	// The kernel prints ids of the reader's namespace, which may have more digits
	// than those that were written: the limit of the text does not hold here.
	if _, err := join(slices.Clone(out)); err != nil {
		return nil, fault.Wrap(fault.Corrupt, "read id map", "", err, "")
	}
	return arranged(out, insideOf), nil
}

func spanOfLine(line string) (Span, bool) {
	var fields [3]string
	for i := range fields {
		line = strings.TrimLeft(line, " ")
		fields[i], line, _ = strings.Cut(line, " ")
	}
	s, why := spanOf(fields)
	return s, why == "" && strings.TrimLeft(line, " ") == ""
}

// ParseKernel reads the same text as a map. Errors are of class Corrupt.
func ParseKernel(text []byte) (Map, error) {
	lines, err := ParseExtents(text)
	return Map{merge(lines)}, err
}

// String prints the extents as one write to uid_map takes them: a line
// "IN OUT N" each (user_namespaces(7)).
func (e Extents) String() string {
	b := make([]byte, 0, 16*len(e))
	for _, s := range e {
		b = append(s.appendTo(b, ' '), '\n')
	}
	return string(b)
}

// SplitAt returns m as it has to be written by a process whose own namespace
// has the extents parent, as ParseExtents returns them: m's host ids are the
// inside ids of parent, and no line reaches over the end of a line of parent.
// Linux kernel/user_namespace.c, map_write, looks up each line whole in one
// extent of the parent and refuses with EPERM otherwise, even where the next
// extent goes on (podman#8182).
//
// Errors are of class Invalid and name the span: a host id that parent does not
// map, which the kernel would refuse as well, and New's limits, for a result of
// too many lines. Podman returns a map with such ids unchanged and leaves the
// refusal to the kernel.
func (m Map) SplitAt(parent Extents) (Extents, error) {
	out := make([]Span, 0, len(m.spans)+len(parent))
	rest := parent
	for _, s := range m.byHost() {
		for todo := s.hosts(); todo.from < todo.to; {
			for len(rest) > 0 && rest[0].insides().to <= todo.from {
				rest = rest[1:]
			}
			if len(rest) == 0 || uint64(rest[0].In) > todo.from {
				return nil, bad(s, fmt.Sprintf("this process has no id %d in its own user namespace to map it to", todo.from))
			}
			to := min(todo.to, rest[0].insides().to)
			out = append(out, s.part(todo.from-uint64(s.Out), to-todo.from))
			todo.from = to
		}
	}
	out = arranged(out, insideOf)
	if err := (Map{out}).checkLimits(); err != nil {
		return nil, err
	}
	return out, nil
}
