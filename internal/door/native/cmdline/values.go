package cmdline

import (
	"bufio"
	"bytes"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

func (o *RunOptions) environment(r *Run, c Client) (err error) {
	r.Ask.Env, err = environment(o.envFile, o.env, c)
	return err
}

// environment joins files and flags; flags come last and so win. A name
// without a value takes the client's, and vanishes when the client has none.
func environment(files, flags []string, c Client) ([]string, error) {
	var out []string
	add := func(v string) {
		name, _, given := strings.Cut(v, "=")
		if given {
			out = append(out, v)
		} else if value, ok := c.lookup(name); ok {
			out = append(out, name+"="+value)
		}
	}
	for _, f := range files {
		lines, err := keyValueFile("--env-file", f, c)
		if err != nil {
			return nil, err
		}
		for _, l := range lines {
			add(l)
		}
	}
	for _, e := range flags {
		if e == "" || e[0] == '=' {
			return nil, invalid("-e, --env", e, "invalid environment variable: "+e)
		}
		add(e)
	}
	return out, nil
}

func (o *RunOptions) labelled(r *Run, c Client) error {
	labels := map[string]string{}
	add := func(flag, l string) error {
		k, v, _ := strings.Cut(l, "=")
		if k == "" {
			return invalid(flag, l, "invalid label format: \""+l+"\"")
		}
		labels[k] = v
		return nil
	}
	for _, f := range o.labelFiles {
		lines, err := keyValueFile("--label-file", f, c)
		if err != nil {
			return err
		}
		for _, l := range lines {
			if err := add("--label-file", l); err != nil {
				return err
			}
		}
	}
	for _, l := range o.labels {
		if err := add("-l, --label", l); err != nil {
			return err
		}
	}
	r.Ask.Labels = labels
	for _, a := range o.annotations {
		k, v, ok := strings.Cut(a, "=")
		if !ok || k == "" {
			return invalid("--annotation", a, "annotations are NAME=VALUE")
		}
		if r.Ask.Annotations == nil {
			r.Ask.Annotations = map[string]string{}
		}
		r.Ask.Annotations[k] = v
	}
	return nil
}

// keyValueFile reads the lines of an env or label file as docker does: leading
// white space goes, empty lines and those that begin with # are skipped, a
// name holds no white space.
func keyValueFile(flag, name string, c Client) ([]string, error) {
	b, err := c.read(flag, name)
	if err != nil {
		return nil, err
	}
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	var out []string
	s := bufio.NewScanner(bytes.NewReader(b))
	s.Buffer(nil, 1<<20)
	for n := 1; s.Scan(); n++ {
		if !utf8.Valid(s.Bytes()) {
			return nil, invalid(flag, name, "invalid utf8 bytes at line "+strconv.Itoa(n))
		}
		line := strings.TrimLeftFunc(s.Text(), unicode.IsSpace)
		if line == "" || line[0] == '#' {
			continue
		}
		key, _, _ := strings.Cut(line, "=")
		if key == "" {
			return nil, invalid(flag, name, "no variable name on line '"+line+"'")
		}
		if strings.ContainsFunc(key, unicode.IsSpace) {
			return nil, invalid(flag, name, "variable '"+key+"' contains whitespaces")
		}
		out = append(out, line)
	}
	if err := s.Err(); err != nil {
		return nil, invalid(flag, name, err.Error())
	}
	return out, nil
}

// ParseDetachKeys turns "ctrl-p,ctrl-q" into the bytes a terminal sends for it.
func ParseDetachKeys(s string) ([]byte, error) { return detachKeys(s) }

func detachKeys(s string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	var out []byte
	for key := range strings.SplitSeq(s, ",") {
		b, ok := keyByte(key)
		if !ok {
			return nil, invalid("--detach-keys", s, "unknown character: '"+key+"'")
		}
		out = append(out, b)
	}
	return out, nil
}

func keyByte(key string) (byte, bool) {
	if len(key) == 1 {
		return key[0], true
	}
	ctrl, ok := strings.CutPrefix(strings.ToLower(key), "ctrl-")
	if !ok || len(ctrl) != 1 {
		return 0, false
	}
	switch c := ctrl[0]; {
	case c >= 'a' && c <= 'z':
		return c - 'a' + 1, true
	case c == '@':
		return 0, true
	case c >= '[' && c <= '_':
		return c - '[' + 27, true
	}
	return 0, false
}
