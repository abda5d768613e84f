// Package show makes the texts of fief's command line: docker's tables,
// sentences and templates from records.
package show

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"text/template"

	"fief/internal/words/fault"
)

// functions are those of docker's --format.
func functions() template.FuncMap {
	return template.FuncMap{
		"json":     compact,
		"split":    strings.Split,
		"join":     join,
		"title":    title,
		"lower":    strings.ToLower,
		"upper":    strings.ToUpper,
		"pad":      pad,
		"truncate": truncate,
		"println":  fmt.Sprintln,
	}
}

// headings are the functions as applied to a table's headings, which they
// leave as they are.
func headings() template.FuncMap {
	same := func(s string) string { return s }
	return template.FuncMap{
		"json": same, "title": same, "lower": same, "upper": same,
		"split":    func(s, _ string) []string { return []string{s} },
		"join":     func(s any, _ string) string { return fmt.Sprint(s) },
		"truncate": func(s string, _ int) string { return s },
	}
}

func compact(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return strings.TrimRight(b.String(), "\n"), err
}

// join joins a list, also one that came through JSON and holds any values.
func join(list any, sep string) (string, error) {
	switch l := list.(type) {
	case []string:
		return strings.Join(l, sep), nil
	case []any:
		var words []string
		for _, v := range l {
			words = append(words, fmt.Sprint(v))
		}
		return strings.Join(words, sep), nil
	case nil:
		return "", nil
	}
	return "", fmt.Errorf("join: %T is no list", list)
}

func title(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func pad(s string, left, right int) string {
	if s == "" {
		return s
	}
	return strings.Repeat(" ", max(left, 0)) + s + strings.Repeat(" ", max(right, 0))
}

func truncate(s string, n int) string {
	if n < 0 {
		n = 0
	}
	if r := []rune(s); len(r) > n {
		return string(r[:n])
	}
	return s
}

// parse makes a template of what a user typed, where \t and \n may be spelled
// out.
func parse(text string) (*template.Template, error) {
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	t, err := template.New("").Funcs(functions()).Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, fault.Say(fault.Invalid, "template parsing error: "+err.Error())
	}
	return t, nil
}

// Headings are the titles of a table's columns by the name of the field.
type Headings map[string]string

// Label is the title of {{.Label "a.b.c"}}: its last part.
func (h Headings) Label(name string) string {
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		name = name[i+1:]
	}
	return strings.NewReplacer("-", " ", "_", " ").Replace(name)
}

// Table is a way to print rows.
type Table struct {
	Headings Headings
	Default  string // the template of the plain table
	Format   string // what the user gave: "", "table", "table TEMPLATE", "json", TEMPLATE
}

// Write prints rows by the table's format. A row's exported fields and methods
// are what templates may use.
func Write[T any](w io.Writer, t Table, rows []T) error {
	text, tabular := strings.CutPrefix(t.Format, "table")
	switch {
	case t.Format == "json":
		text = "{{json .}}"
	case t.Format == "" || tabular && strings.TrimSpace(text) == "":
		text, tabular = t.Default, true
	}
	tmpl, err := parse(strings.TrimSpace(text))
	if err != nil {
		return err
	}
	if tabular {
		// A tabwriter writes each cell by itself: without a buffer below it that
		// is a system call for each.
		out := bufio.NewWriter(w)
		defer out.Flush()
		tw := tabwriter.NewWriter(out, 10, 1, 3, ' ', 0)
		if err := titles(tw, tmpl, t.Headings); err != nil {
			return err
		}
		w = tw
		defer tw.Flush()
	}
	var line bytes.Buffer // one for all rows: a long table is drawn in half the time
	for i := range rows {
		line.Reset()
		if err := executeIn(&line, w, tmpl, &rows[i]); err != nil {
			return err
		}
	}
	return nil
}

func titles(w io.Writer, tmpl *template.Template, h Headings) error {
	head, err := tmpl.Clone()
	if err != nil {
		return fault.Wrap(fault.Internal, "make headings", "", err, "")
	}
	return execute(w, head.Funcs(headings()), h)
}

// execute prints one row whole or not at all.
func execute(w io.Writer, tmpl *template.Template, row any) error {
	var b bytes.Buffer
	return executeIn(&b, w, tmpl, row)
}

// executeIn is execute with a buffer, which is empty, to work in.
func executeIn(b *bytes.Buffer, w io.Writer, tmpl *template.Template, row any) error {
	if err := tmpl.Execute(b, row); err != nil {
		return fault.Say(fault.Invalid, "template parsing error: "+err.Error())
	}
	b.WriteByte('\n')
	_, err := w.Write(b.Bytes())
	return err
}

// Objects prints the objects of an inspect: as a JSON array, or each by a
// template that sees them as JSON does.
func Objects(w io.Writer, format string, objects []any) error {
	switch format {
	case "":
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		e.SetIndent("", "    ")
		return e.Encode(objects)
	case "json":
		format = "{{json .}}"
	}
	tmpl, err := parse(format)
	if err != nil {
		return err
	}
	for _, o := range objects {
		raw, err := generic(o)
		if err != nil {
			return err
		}
		if err := execute(w, tmpl, raw); err != nil {
			return err
		}
	}
	return nil
}

// Object prints one object by a template, or as one line of JSON for "json".
func Object(w io.Writer, format string, o any) error {
	if format == "json" {
		format = "{{json .}}"
	}
	return Objects(w, format, []any{o})
}

// generic turns o into what its JSON says, so that templates name fields as
// docker's JSON does. Numbers stay as they are written.
func generic(o any) (any, error) {
	b, err := json.Marshal(o)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "encode", "object", err, "")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	err = d.Decode(&v)
	if m, ok := v.(map[string]any); ok {
		if id, ok := m["Id"]; ok {
			m["ID"] = id
			return named(m), err
		}
	}
	return v, err
}

// named is an object whose Id templates may also call ID, as in docker's own
// types; JSON does not show it twice.
type named map[string]any

// MarshalJSON implements json.Marshaler.
func (n named) MarshalJSON() ([]byte, error) {
	m := map[string]any{}
	for k, v := range n {
		if k != "ID" {
			m[k] = v
		}
	}
	return json.Marshal(m)
}
