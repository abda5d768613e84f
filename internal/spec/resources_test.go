package spec

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

func TestResources(t *testing.T) {
	zero, pids := int64(0), int64(-5)
	for want, r := range map[string]record.Resources{
		"null": {},
		`{"memory":{"limit":8,"reservation":2,"swap":9}}`: {Memory: 8, MemorySwap: 9, MemoryReservation: 2},
		`{"memory":{"swap":-1}}`:                          {MemorySwap: -1},
		`{"memory":{"swappiness":0}}`:                     {MemorySwappiness: &zero},
		`{"memory":{"disableOOMKiller":true}}`:            {OomKillDisable: true},
		`{"cpu":{"quota":150000,"period":100000}}`:        {NanoCPUs: 1500000000},
		`{"cpu":{"shares":5,"cpus":"0-1","mems":"0"}}`:    {CPUShares: 5, CpusetCpus: "0-1", CpusetMems: "0"},
		`{"pids":{"limit":-1}}`:                           {PidsLimit: &pids},
	} {
		got, err := Resources(r)
		text, _ := json.Marshal(got)
		if err != nil || string(text) != want {
			t.Errorf("%+v: %s, %v, want %s", r, text, err, want)
		}
	}
	for path, want := range map[string]string{"/dev/absent": "no such file", "/dev/null": "not a block device"} {
		_, err := Resources(record.Resources{ReadBps: []record.DeviceRate{{Path: path, Rate: 1}}})
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := os.Stat("/dev/loop0"); err != nil {
		t.Skip("kernel: no block device")
	}
	got, err := Resources(record.Resources{BlkioWeight: 20, WriteIOps: []record.DeviceRate{{Path: "/dev/loop0", Rate: 3}}})
	if err != nil || got.BlockIO.ThrottleWriteIOPSDevice[0].Major != 7 || *got.BlockIO.Weight != 20 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestDevices: nodes are bound in a user namespace and made without one, and rules
// are there where they say less than the nodes do.
func TestDevices(t *testing.T) {
	given, err := GivenDevices([]record.Device{{Host: "/dev/null", Container: "/dev/mine", Access: "rwm"}})
	if err != nil || len(given) != 1 || given[0].Node.Path != "/dev/mine" || given[0].Node.Minor != 3 {
		t.Fatalf("%+v, %v", given, err)
	}
	for _, path := range []string{"/dev/absent", "/etc"} {
		if _, err := GivenDevices([]record.Device{{Host: path, Container: path}}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", path, err)
		}
	}
	build := func(change func(*record.Container, *Facts)) *specs.Spec {
		c, f := plain()
		f.Given = slices.Clone(given)
		change(&c, &f)
		s, err := Build(c, f)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	host := record.Identity{Mode: "host"}
	bound := func(s *specs.Spec) bool { return mountedAt(s.Mounts, "/dev/mine") }
	s := build(func(*record.Container, *Facts) {})
	if !bound(s) || len(s.Linux.Devices) > 0 || s.Linux.Resources != nil {
		t.Errorf("in a user namespace: %+v", s.Linux)
	}
	s = build(func(c *record.Container, f *Facts) { f.Given[0].Access = "r" })
	if !bound(s) || len(s.Linux.Resources.Devices) == 0 {
		t.Errorf("less access: %+v", s.Linux)
	}
	s = build(func(c *record.Container, f *Facts) {
		c.Identity, f.Guarded, c.Resources.DeviceRules = host, true, []string{"b 7:* r"}
	})
	rules := s.Linux.Resources.Devices
	if last := rules[len(rules)-1]; bound(s) || len(s.Linux.Devices) != 1 || rules[0].Allow || *last.Major != 7 || last.Minor != nil || last.Access != "r" {
		t.Errorf("without a user namespace: %+v", s.Linux)
	}
	if !slices.Contains(s.Process.Capabilities.Bounding, "CAP_MKNOD") {
		t.Error("guarded, and no CAP_MKNOD")
	}
	s = build(func(c *record.Container, f *Facts) { c.Identity = host })
	if slices.Contains(s.Process.Capabilities.Bounding, "CAP_MKNOD") || s.Linux.Resources != nil {
		t.Errorf("not guarded: %+v", s.Process.Capabilities)
	}
	s = build(func(c *record.Container, f *Facts) { c.Identity, f.Guarded, c.Privileged = host, true, true })
	if s.Linux.Resources != nil {
		t.Errorf("privileged: %+v", s.Linux.Resources)
	}
}

func TestCheckSysctl(t *testing.T) {
	own, shared := record.Container{Network: "none"}, record.Container{Network: "host", IPCMode: "host"}
	for name, good := range map[string][2]bool{"net.core.somaxconn": {true, false}, "kernel.shmmax": {true, false}, "fs.mqueue.msg_max": {true, false}, "kernel.panic": {}, "vm.swappiness": {}} {
		for i, c := range []record.Container{own, shared} {
			if err := CheckSysctl(name, c); (err == nil) != good[i] {
				t.Errorf("%s in %+v: %v", name, c.Network, err)
			}
		}
	}
}
