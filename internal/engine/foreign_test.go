package engine

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// TestFeatures: what a runtime says that it lacks is refused by name, and what
// it does not say is not.
func TestFeatures(t *testing.T) {
	no := false
	config := func(edit func(*specs.Spec)) *specs.Spec {
		s := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN"}}}, Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{{Type: specs.UserNamespace}}, Seccomp: &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}}}
		if edit != nil {
			edit(s)
		}
		return s
	}
	for name, c := range map[string]struct {
		edit  func(*specs.Spec)
		has   *features.Features
		wants string
	}{
		"says nothing":       {},
		"domain name":        {edit: func(s *specs.Spec) { s.Domainname = "d" }, wants: "domain name"},
		"old":                {edit: func(s *specs.Spec) { s.Domainname = "d" }, has: &features.Features{OCIVersionMax: "1.0.2-dev"}, wants: "domain name"},
		"new":                {edit: func(s *specs.Spec) { s.Domainname = "d" }, has: &features.Features{OCIVersionMax: "1.1.0"}},
		"no user namespaces": {has: &features.Features{Linux: &features.Linux{Namespaces: []string{"pid"}}}, wants: "user namespaces"},
		"no capability":      {has: &features.Features{Linux: &features.Linux{Capabilities: []string{"CAP_KILL"}}}, wants: "capability CAP_CHOWN"},
		"no filters":         {has: &features.Features{Linux: &features.Linux{Seccomp: &features.Seccomp{Enabled: &no}}}, wants: "system call filters"},
		"no action":          {has: &features.Features{Linux: &features.Linux{Seccomp: &features.Seccomp{Actions: []string{"SCMP_ACT_KILL"}}}}, wants: "filter action SCMP_ACT_ERRNO"},
		"no hook": {edit: func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/x"}}} },
			has: &features.Features{Hooks: []string{"prestart"}, Linux: &features.Linux{}}, wants: "poststop hooks"},
	} {
		err := checkFeatures(record.Container{Name: "box", Runtime: "other"}, config(c.edit), c.has)
		if c.wants == "" && err != nil || c.wants != "" && (err == nil || err.Error() != "cannot use runtime other for container box: it has no "+c.wants) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBlame: exit codes are Docker's, and only what a runtime said itself is
// looked into.
func TestBlame(t *testing.T) {
	for _, c := range []struct {
		class fault.Class
		text  string
		code  int
	}{
		{fault.Invalid, `exec: "nosuch": executable file not found in $PATH`, 127},
		{fault.Invalid, "executable file `nosuch` not found in $PATH: No such file or directory", 127},
		{fault.Invalid, `exec: "nosuch": no such file or directory`, 127},
		{fault.Invalid, "fork/exec /proc/self/exe: no such file or directory", 125},
		{fault.Invalid, "open executable: Permission denied", 126},
		{fault.Invalid, "whatever", 125},
		{fault.Internal, "cannot execute /usr/bin/nosuch: no such file or directory", 125},
	} {
		if got := fault.ExitCodeOf(blame(fault.Say(c.class, c.text), "nosuch")); got != c.code {
			t.Errorf("%s: %d", c.text, got)
		}
	}
}

// TestHostNetwork: runsc is told by one word or two.
func TestHostNetwork(t *testing.T) {
	for args, want := range map[string]bool{"": false, "--network=host": true, "-network=host": true, "--debug --network host": true, "--network none": false,
		"--network=none host": false, "--network": false, "host --network none": false} {
		if hostNetwork(strings.Fields(args)) != want {
			t.Errorf("%q", args)
		}
	}
}

// TestNodes: nodes of devices are refused where a sandbox would start without them.
func TestNodes(t *testing.T) {
	with := &specs.Spec{Linux: &specs.Linux{Devices: []specs.LinuxDevice{{Path: "/dev/x"}}}}
	rec := record.Container{Name: "box", Runtime: "runsc"}
	if err := checkNodes(rec, record.Runsc, with); !fault.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "/dev/x") {
		t.Errorf("%v", err)
	}
	if checkNodes(rec, record.Crun, with) != nil || checkNodes(rec, record.Runsc, &specs.Spec{Linux: &specs.Linux{}}) != nil {
		t.Error("refused")
	}
}
