package cgroup

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestListDevices: rules that mean the same in v1 are listed there, in their
// order, and in force.
func TestListDevices(t *testing.T) {
	tr := tree(t)
	h, ok := tr.in("devices")
	if !ok {
		t.Skip("kernel: no v1 hierarchy of devices")
	}
	dir, err := tr.Create("listed")
	if err != nil {
		t.Fatal(err)
	}
	dir.Close()
	rules := []specs.LinuxDeviceCgroup{
		{Allow: true, Type: "c", Major: number(1), Minor: number(3), Access: "rwm"},
		{Access: "rwm"},
		{Allow: true, Type: "c", Major: number(10), Minor: number(229), Access: "mrw"},
		{Allow: true, Type: "b", Major: number(8), Access: "rw"},
		{Allow: true, Access: "m", Major: number(7)},
	}
	if err := tr.ListDevices("listed", rules); err != nil {
		t.Fatalf("a group that v1 has not: %v", err)
	}
	if err := tr.Spread("listed"); err != nil {
		t.Fatal(err)
	}
	list := func() string {
		text, err := read(h.fd(), tr.dir("listed")+"/devices.list")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Split(text, "\n"), ", ")
	}
	if list() != "a *:* rwm" {
		t.Skip("root: this one may not use all devices")
	}
	if err := tr.ListDevices("listed", append(slices.Clone(rules), specs.LinuxDeviceCgroup{Type: "c", Major: number(10), Access: "w"})); err != nil || list() != "a *:* rwm" {
		t.Errorf("rules that v1 understands otherwise: %v, %q", err, list())
	}
	if err := tr.ListDevices("listed", rules); err != nil {
		t.Fatal(err)
	}
	const want = "c 10:229 rwm, b 8:* rw, b 7:* m, c 7:* m"
	if list() != want {
		t.Errorf("%q, want %q", list(), want)
	}
	if err := tr.ListDevices("listed", rules[2:3]); err != nil || list() != "c 10:229 rwm" {
		t.Errorf("a second time: %v, %q", err, list())
	}
}

// TestExceptions: what v1 cannot say is not said in part.
func TestExceptions(t *testing.T) {
	all := specs.LinuxDeviceCgroup{Access: "rwm"}
	for name, c := range map[string]struct {
		rules []specs.LinuxDeviceCgroup
		want  string
	}{
		"nothing":           {nil, ""},
		"all denied":        {[]specs.LinuxDeviceCgroup{all}, ""},
		"unbuffered":        {[]specs.LinuxDeviceCgroup{all, {Allow: true, Type: "u", Major: number(1), Minor: number(-1)}}, "c 1:* rwm"},
		"all allowed":       {[]specs.LinuxDeviceCgroup{all, {Allow: true, Type: "a"}}, "no"},
		"allowed and reset": {[]specs.LinuxDeviceCgroup{{Allow: true, Type: "c"}, {Type: "a"}, {Allow: true, Type: "b"}}, "b *:* rwm"},
		"all denied writes": {[]specs.LinuxDeviceCgroup{{Access: "w"}}, "no"},
		"taken away":        {[]specs.LinuxDeviceCgroup{all, {Allow: true, Type: "c"}, {Type: "c", Major: number(5)}}, "no"},
		"mistyped":          {[]specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Access: "x"}}, "no"},
	} {
		got, ok := exceptions(c.rules)
		text := strings.Join(got, ", ")
		if !ok {
			text = "no"
		}
		if text != c.want {
			t.Errorf("%s: %q, want %q", name, text, c.want)
		}
	}
}
