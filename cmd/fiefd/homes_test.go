package main

import (
	"testing"

	"fief/internal/kernel/cgroup"
	"fief/internal/kernel/systemd"
	"fief/internal/words/fault"
)

// TestChooseDriver: systemd's driver needs systemd and v2 alone; it is chosen by
// itself only for a service of systemd's.
func TestChooseDriver(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/run/notify")
	for _, mode := range []cgroup.Mode{cgroup.None, cgroup.Hybrid} {
		if d, err := chooseDriver("", mode); d != driverCgroupfs || err != nil {
			t.Errorf("%s: %s, %v", mode, d, err)
		}
		if d, err := chooseDriver(driverSystemd, mode); !fault.Is(err, fault.Unsupported) {
			t.Errorf("%s: %s, %v", mode, d, err)
		}
	}
	want := driverCgroupfs
	if systemd.Running() {
		want = driverSystemd
	}
	if d, err := chooseDriver("", cgroup.Unified); d != want || err != nil {
		t.Errorf("%s, %v; want %s", d, err, want)
	}
	if d, err := chooseDriver(driverCgroupfs, cgroup.Unified); d != driverCgroupfs || err != nil {
		t.Errorf("%s, %v", d, err)
	}
	t.Setenv("NOTIFY_SOCKET", "")
	if d, err := chooseDriver("", cgroup.Unified); d != driverCgroupfs || err != nil {
		t.Errorf("%s, %v", d, err)
	}
}

// TestHomesRefuseOtherParents: with systemd's driver a parent is a slice.
func TestHomesRefuseOtherParents(t *testing.T) {
	for name, want := range map[string]string{
		"abc": "/system.slice/fief-containers.service", "/a-b.slice/abc": "/a.slice/a-b.slice/fief-containers-of-a-b.service", "/a/abc": "", "/a/b.slice/abc": "",
	} {
		home, err := (&homes{}).of(name)
		if want == "" {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%s: %v, %v", name, home, err)
			}
			continue
		}
		if err != nil || home.Dir() != want {
			t.Errorf("%s: %s, %v", name, home.Dir(), err)
		}
	}
}
