package main

import "testing"

func TestDefaultLogDriver(t *testing.T) {
	if _, err := configure([]string{"--config-file", t.TempDir() + "/none"}); err == nil {
		t.Error("a named file must exist")
	}
	s, err := configure([]string{"--log-driver", "local", "--log-opt", "max-size=1m"})
	if err != nil {
		t.Fatal(err)
	}
	if l, err := s.logs(); err != nil || l.Driver != "local" || l.Options["max-size"] != "1m" {
		t.Errorf("%+v, %v", l, err)
	}
	for _, bad := range [][]string{{"--log-driver", "odd"}, {"--log-opt", "odd=1"}, {"--log-opt", "max-size"}} {
		if _, err := configure(bad); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
}
