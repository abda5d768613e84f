package network

import (
	"strings"
	"testing"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		network string
		mapped  bool
		want    fault.Class
		ok      bool
	}{
		{"none", true, 0, true},
		{"none", false, 0, true},
		{"host", false, 0, true},
		{"host", true, fault.Invalid, false},
		{"bridge", true, 0, true},
	} {
		err := Check(c.network, c.mapped)
		if (err == nil) != c.ok || err != nil && fault.ClassOf(err) != c.want {
			t.Errorf("Check(%s, %v) = %v", c.network, c.mapped, err)
		}
		if err != nil && fault.HintOf(err) == "" {
			t.Errorf("Check(%s, %v) has no hint", c.network, c.mapped)
		}
	}
}

func TestFiles(t *testing.T) {
	f, err := FilesFor(record.Container{Hostname: "web", Domainname: "example.org", Network: "none"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if string(f.Hostname) != "web\n" {
		t.Errorf("hostname %q", f.Hostname)
	}
	if !strings.Contains(string(f.Hosts), "127.0.1.1\tweb.example.org web\n") {
		t.Errorf("hosts:\n%s", f.Hosts)
	}
	if len(f.Resolv) != 0 {
		t.Errorf("a container without network has resolvers: %q", f.Resolv)
	}
}
