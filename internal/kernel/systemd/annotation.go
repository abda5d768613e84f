package systemd

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"fief/internal/words/fault"
)

// annotated is what an annotation's name begins with that gives the container's
// unit a property (runc, docs/systemd.md; podman writes two of them).
const annotated = "org.systemd.property."

// Annotated are the properties that annotations ask for, sorted by name. A value
// is in the text form of GVariant, of which strings, booleans, numbers with or
// without the name of their type, and lists of strings are understood. A name in
// Sec has seconds, and becomes the one in USec with microseconds. Anything else is
// an Invalid fault.
func Annotated(annotations map[string]string) ([]Property, error) {
	var out []Property
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		name, ok := strings.CutPrefix(key, annotated)
		if !ok {
			continue
		}
		value, err := variant(annotations[key])
		if err == nil && (len(name) < 3 || strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") != "") {
			err = strconv.ErrSyntax
		}
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, "use annotation", key+"="+annotations[key], err, "such as TimeoutStopUSec=\"uint64 10000000\", KillSignal=\"15\" or After=\"['a.service']\"")
		}
		if base, ok := strings.CutSuffix(name, "Sec"); ok && !strings.HasSuffix(base, "U") {
			if value, err = micro(value); err != nil {
				return nil, fault.Wrap(fault.Invalid, "use annotation", key+"="+annotations[key], err, "a number of seconds")
			}
			name = base + "USec"
		}
		out = append(out, Property{name, value})
	}
	return out, nil
}

// micro turns seconds into the microseconds that properties have.
func micro(v Value) (Value, error) {
	var n uint64
	switch v := v.(type) {
	case Number:
		n = uint64(v)
	case Word:
		n = uint64(v)
	case Int:
		if v < 0 {
			return nil, strconv.ErrRange
		}
		n = uint64(v)
	default:
		return nil, strconv.ErrSyntax
	}
	if n > infinity/1000000 {
		return nil, strconv.ErrRange
	}
	return Number(n * 1000000), nil
}

// variant reads a value in GVariant's text form; a number without a type is an
// int32 there.
func variant(text string) (Value, error) {
	text = strings.TrimSpace(text)
	switch {
	case text == "true", text == "false":
		return Flag(text == "true"), nil
	case strings.HasPrefix(text, "["):
		return list(text)
	case strings.HasPrefix(text, "'"), strings.HasPrefix(text, "\""):
		s, rest, err := quoted(text)
		if err == nil && rest != "" {
			err = strconv.ErrSyntax
		}
		return Text(s), err
	}
	kind, digits, typed := strings.Cut(text, " ")
	if !typed {
		kind, digits = "int32", text
	}
	digits = strings.TrimSpace(digits)
	switch kind {
	case "int32":
		n, err := strconv.ParseInt(digits, 0, 32)
		return Int(n), err
	case "uint32":
		n, err := strconv.ParseUint(digits, 0, 32)
		return Word(n), err
	case "uint64":
		n, err := strconv.ParseUint(digits, 0, 64)
		return Number(n), err
	}
	return nil, strconv.ErrSyntax
}

// quoted reads a string in its quotes, of which it has no more inside, nor a
// backslash: no property's value needs them.
func quoted(text string) (s, rest string, err error) {
	end := strings.IndexByte(text[1:], text[0])
	if end < 0 {
		return "", "", strconv.ErrSyntax
	}
	s, rest = text[1:end+1], text[end+2:]
	if strings.ContainsAny(s, "\\\x00") {
		return "", "", strconv.ErrSyntax
	}
	return s, strings.TrimSpace(rest), nil
}

func list(text string) (Value, error) {
	rest := strings.TrimSpace(text[1:])
	out := Texts{}
	for {
		if rest == "]" {
			return out, nil
		}
		if rest == "" || rest[0] != '\'' && rest[0] != '"' {
			return nil, strconv.ErrSyntax
		}
		s, after, err := quoted(rest)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
		next, more := strings.CutPrefix(after, ",")
		if rest = strings.TrimSpace(next); !more && rest != "]" {
			return nil, strconv.ErrSyntax
		}
	}
}
