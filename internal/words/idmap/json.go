package idmap

import (
	"bytes"
	"fmt"
	"strconv"
)

// The JSON of a Map is the list of its spans, [{"In":0,"Out":524288,"N":65536}],
// the same as of a []Span. It is read and written by hand, because this package
// is linked into the monitor, which cannot afford encoding/json's and reflect's
// memory and initialisation beside every container.

// MarshalJSON writes the list of spans.
func (m Map) MarshalJSON() ([]byte, error) {
	b := []byte{'['}
	for i, s := range m.spans {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `{"In":%d,"Out":%d,"N":%d}`, s.In, s.Out, s.N)
	}
	return append(b, ']'), nil
}

// UnmarshalJSON reads a list of spans, or null for the zero Map, and refuses
// what New refuses. m is untouched on failure.
func (m *Map) UnmarshalJSON(text []byte) error {
	s := scanner{rest: text}
	if s.word("null") {
		*m = Map{}
		return s.end()
	}
	spans, err := s.spans()
	if err != nil {
		return err
	}
	read, err := own(spans)
	if err != nil {
		return err
	}
	*m = read
	return nil
}

// scanner reads the few shapes of JSON that a list of spans has.
type scanner struct{ rest []byte }

func (s *scanner) spans() ([]Span, error) {
	if !s.word("[") {
		return nil, s.unexpected()
	}
	var out []Span
	if s.word("]") {
		return nil, s.end()
	}
	for {
		span, err := s.span()
		if err != nil {
			return nil, err
		}
		out = append(out, span)
		if s.word("]") {
			return out, s.end()
		}
		if !s.word(",") {
			return nil, s.unexpected()
		}
	}
}

// span reads an object of the members In, Out and N in any order; one that is
// missing is 0, which for N is refused later.
func (s *scanner) span() (Span, error) {
	var out Span
	if !s.word("{") {
		return out, s.unexpected()
	}
	if s.word("}") {
		return out, nil
	}
	for {
		var err error
		switch {
		case s.word(`"In"`):
			err = s.number((*uint32)(&out.In))
		case s.word(`"Out"`):
			err = s.number((*uint32)(&out.Out))
		case s.word(`"N"`):
			err = s.number(&out.N)
		default:
			err = s.unexpected()
		}
		if err != nil || s.word("}") {
			return out, err
		}
		if !s.word(",") {
			return out, s.unexpected()
		}
	}
}

// number reads a colon and a number.
func (s *scanner) number(to *uint32) error {
	if !s.word(":") {
		return s.unexpected()
	}
	s.space()
	digits := 0
	for digits < len(s.rest) && s.rest[digits] >= '0' && s.rest[digits] <= '9' {
		digits++
	}
	v, err := strconv.ParseUint(string(s.rest[:digits]), 10, 32)
	if err != nil || digits > 1 && s.rest[0] == '0' {
		return s.unexpected()
	}
	*to = uint32(v)
	s.rest = s.rest[digits:]
	return nil
}

// word skips white space and then w, if that is next.
func (s *scanner) word(w string) bool {
	s.space()
	rest, ok := bytes.CutPrefix(s.rest, []byte(w))
	s.rest = rest
	return ok
}

func (s *scanner) space() { s.rest = bytes.TrimLeft(s.rest, " \t\r\n") }

func (s *scanner) end() error {
	s.space()
	if len(s.rest) > 0 {
		return s.unexpected()
	}
	return nil
}

func (s *scanner) unexpected() error {
	return badEntry(string(s.rest), "a list of objects with the numbers In, Out and N was expected here", plainEntries)
}
