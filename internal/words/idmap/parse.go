package idmap

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"fief/internal/words/fault"
)

// ParseList reads the values of repeated --uidmap or --gidmap flags: each holds
// one entry CONTAINER_ID:HOST_ID[:LENGTH] or several, separated by commas.
// Numbers are decimal, without sign; a missing LENGTH is 1. No values give the
// zero Map. Errors are of class Invalid and name the entry.
func ParseList(values []string) (Map, error) {
	var spans []Span
	for _, value := range values {
		for entry := range strings.SplitSeq(value, ",") {
			s, err := parseSpan(entry)
			if err != nil {
				return Map{}, err
			}
			spans = append(spans, s)
		}
	}
	return New(spans...)
}

// List prints the map as ParseList takes it, entries separated by commas.
func (m Map) List() string {
	entries := make([]string, len(m.spans))
	for i, s := range m.spans {
		entries[i] = s.String()
	}
	return strings.Join(entries, ",")
}

func parseSpan(entry string) (Span, error) {
	fields := strings.Split(entry, ":")
	if len(fields) == 2 {
		fields = append(fields, "1")
	}
	if len(fields) != 3 {
		return Span{}, badEntry(entry, fmt.Sprintf("it has %d parts", len(fields)))
	}
	in, out, n, bad := parseNumbers(fields)
	if bad != "" {
		return Span{}, badEntry(entry, bad+" is not a number from 0 to 4294967295")
	}
	return Span{Inside(in), Host(out), n}, nil
}

// parseNumbers reads three numbers, or returns the field that is none, quoted.
func parseNumbers(fields []string) (in, out, n uint32, bad string) {
	var numbers [3]uint32
	for i, field := range fields {
		v, err := strconv.ParseUint(field, 10, 32)
		if err != nil {
			return 0, 0, 0, fmt.Sprintf("%.32q", field)
		}
		numbers[i] = uint32(v)
	}
	return numbers[0], numbers[1], numbers[2], ""
}

// causeOf is the reason in a fault.
func causeOf(err error) error {
	var f *fault.Error
	if errors.As(err, &f) {
		return f.Cause
	}
	return err
}

func badEntry(entry, why string) error {
	return fault.New(fault.Invalid, "use id map entry", fmt.Sprintf("%.64q", entry), why,
		"entries are CONTAINER_ID:HOST_ID:LENGTH")
}

// ParseKernel reads the text of /proc/PID/uid_map or gid_map
// (user_namespaces(7)). Inside ids that the reader's own namespace does not
// know are printed as 4294967295 by the kernel; such lines are left out.
// Errors are of class Corrupt.
func ParseKernel(text []byte) (Map, error) {
	var spans []Span
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return Map{}, badLine(line)
		}
		in, out, n, bad := parseNumbers(fields)
		if bad != "" {
			return Map{}, badLine(line)
		}
		if out == Max+1 {
			continue
		}
		spans = append(spans, Span{Inside(in), Host(out), n})
	}
	// The kernel prints ids of the reader's namespace, which may have more digits
	// than those that were written: the limit of the text does not hold here.
	m, err := join(spans)
	return m, fault.Wrap(fault.Corrupt, "read id map", "", err, "")
}

func badLine(line string) error {
	return fault.New(fault.Corrupt, "read id map line", fmt.Sprintf("%.64q", line), "it is not three numbers", "")
}
