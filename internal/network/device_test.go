package network

import (
	"testing"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// TestDeviceFor: a device has the name that was asked for, and the others what is
// left.
func TestDeviceFor(t *testing.T) {
	asks := func(device string) record.Endpoint {
		return record.Endpoint{DriverOpts: map[string]string{optDevice: device}}
	}
	has := func(device string) record.Endpoint { return record.Endpoint{Device: device} }
	for _, c := range []struct {
		ep     record.Endpoint
		others []record.Endpoint
		want   string // empty: refused
	}{
		{has(""), nil, "eth0"},
		{has(""), []record.Endpoint{has("eth0"), has("eth2")}, "eth1"},
		{has(""), []record.Endpoint{asks("eth0")}, "eth1"},
		{asks("net7"), []record.Endpoint{has("eth0")}, "net7"},
		{asks("eth0"), []record.Endpoint{has("eth0")}, ""},
		{asks("x"), []record.Endpoint{asks("x")}, ""},
	} {
		if got, err := deviceFor(c.ep, c.others); got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%v beside %v: %q, %v", c.ep, c.others, got, err)
		}
	}
}

func TestCheckOptions(t *testing.T) {
	for _, c := range []struct {
		opt, value string
		class      fault.Class
	}{
		{optDevice, "net7", 0}, {optDevice, "fifteen-letters", 0}, {"other", "x", 0},
		{optDevice, "", fault.Invalid}, {optDevice, "sixteen--letters", fault.Invalid}, {optDevice, "a/b", fault.Invalid}, {optDevice, "a b", fault.Invalid},
		{optDevice, "a:b", fault.Invalid}, {optDevice, "lo", fault.Invalid}, {optDevice, "..", fault.Invalid}, {optDevice, "eth%d", fault.Invalid},
		{optEndpoint + "sysctls", "x=1", fault.Unsupported},
	} {
		err := checkOptions("n", record.Endpoint{DriverOpts: map[string]string{c.opt: c.value}})
		if (err != nil) != (c.class != 0) || err != nil && fault.ClassOf(err) != c.class {
			t.Errorf("%s=%q: %v", c.opt, c.value, err)
		}
	}
}
