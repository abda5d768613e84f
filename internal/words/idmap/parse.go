package idmap

import (
	"errors"
	"fmt"
	"strings"

	"fief/internal/words/fault"
)

// ParseList reads what List prints: values that hold one entry
// CONTAINER_ID:HOST_ID[:LENGTH] or several, separated by commas. Numbers are
// decimal, without sign; a missing LENGTH is 1. No values give the zero Map.
// Errors are of class Invalid and name the entry.
func ParseList(values []string) (Map, error) {
	spans := make([]Span, 0, len(values))
	for _, value := range values {
		for more := true; more; {
			var text string
			text, value, more = strings.Cut(value, ",")
			s, err := parseSpan(text)
			if err != nil {
				return Map{}, err
			}
			spans = append(spans, s)
		}
	}
	return own(spans)
}

// List prints the map as ParseList takes it, entries separated by commas.
func (m Map) List() string {
	b := make([]byte, 0, 16*len(m.spans))
	for i, s := range m.spans {
		if i > 0 {
			b = append(b, ',')
		}
		b = s.appendTo(b, ':')
	}
	return string(b)
}

func parseSpan(text string) (Span, error) {
	fields, why := fieldsOf(text)
	if why != "" {
		return Span{}, badEntry(text, why, plainEntries)
	}
	s, why := spanOf(fields)
	if why != "" {
		return Span{}, badEntry(text, why, plainEntries)
	}
	return s, nil
}

// fieldsOf cuts an entry at its colons, or says why it cannot. A missing third
// field is "1".
func fieldsOf(text string) (fields [3]string, why string) {
	n, start := 0, 0
	for i := range len(text) {
		if text[i] != ':' {
			continue
		}
		if n < 3 {
			fields[n] = text[start:i]
		}
		n, start = n+1, i+1
	}
	switch n {
	case 1:
		fields[1], fields[2] = text[start:], "1"
	case 2:
		fields[2] = text[start:]
	default:
		return fields, fmt.Sprintf("it has %d parts", n+1)
	}
	return fields, ""
}

// spanOf reads three numbers, or says which one is none.
func spanOf(fields [3]string) (s Span, why string) {
	in, ok0 := number(fields[0])
	out, ok1 := number(fields[1])
	n, ok2 := number(fields[2])
	for i, ok := range [...]bool{ok0, ok1, ok2} {
		if !ok {
			return Span{}, fmt.Sprintf("%.32q is not a number from 0 to 4294967295", fields[i])
		}
	}
	return Span{Inside(in), Host(out), n}, ""
}

// number reads decimal digits and nothing else.
func number(text string) (n uint32, ok bool) {
	var v uint64
	for i := range len(text) {
		d := text[i] - '0'
		if d > 9 || v > 1<<32-1 {
			return 0, false
		}
		v = v*10 + uint64(d)
	}
	return uint32(v), text != "" && v <= 1<<32-1
}

// causeOf is the reason in a fault.
func causeOf(err error) string {
	var f *fault.Error
	if errors.As(err, &f) {
		return f.Cause.Error()
	}
	return err.Error()
}

// The shapes that entries have.
const (
	plainEntries  = "entries are CONTAINER_ID:HOST_ID:LENGTH"
	podmanEntries = "entries are [+][u][g]CONTAINER_ID:[@]HOST_ID[:LENGTH]"
	tripleEntries = "entries are CONTAINER_ID:[@]HOST_ID:LENGTH"
)

func badEntry(text, why, shape string) error {
	return fault.New(fault.Invalid, "use id map entry", fmt.Sprintf("%.64q", text), why, shape)
}
