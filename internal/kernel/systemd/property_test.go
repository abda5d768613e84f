package systemd

import (
	"encoding/hex"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/words/fault"
)

// TestLimits: resources become the properties that keep them in force.
func TestLimits(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	u := func(v uint64) *uint64 { return &v }
	for _, c := range []struct {
		r    specs.LinuxResources
		want string
	}{
		{specs.LinuxResources{}, "[]"},
		{specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: n(1 << 20), Swap: n(3 << 20), Reservation: n(4096)}}, "[{MemoryMax 1048576} {MemoryLow 4096} {MemorySwapMax 2097152}]"},
		{specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: n(-1)}}, fmt.Sprintf("[{MemoryMax %[1]d} {MemorySwapMax %[1]d}]", uint64(math.MaxUint64))},
		{specs.LinuxResources{Pids: &specs.LinuxPids{Limit: n(20)}}, "[{TasksMax 20}]"},
		{specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: u(1024), Quota: n(50000)}}, "[{CPUWeight 100} {CPUQuotaPerSecUSec 500000} {CPUQuotaPeriodUSec 100000}]"},
		{specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: n(3333), Period: u(10000)}}, "[{CPUQuotaPerSecUSec 340000} {CPUQuotaPeriodUSec 10000}]"},
		{specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: n(-1)}}, fmt.Sprintf("[{CPUQuotaPerSecUSec %d} {CPUQuotaPeriodUSec 100000}]", uint64(math.MaxUint64))},
		{specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: n(1)}}, "[{CPUWeight 0}]"},
		{specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0-1,9", Mems: "0"}}, "[{AllowedCPUs [3 2]} {AllowedMemoryNodes [1]}]"},
		{specs.LinuxResources{Unified: map[string]string{"memory.high": "max", "memory.min": "7", "hugetlb.2MB.max": "0", "io.max": "8:0 rbps=1"}},
			fmt.Sprintf("[{MemoryHigh %d} {MemoryMin 7}]", uint64(math.MaxUint64))},
		{specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: func(v uint16) *uint16 { return &v }(1000)}}, "[{IOWeight 10000}]"},
	} {
		got, err := Limits(&c.r)
		if text := fmt.Sprint(got); err != nil || text != c.want {
			t.Errorf("%s, %v; want %s", text, err, c.want)
		}
	}
	for _, bad := range []specs.LinuxResources{
		{CPU: &specs.LinuxCPU{Cpus: "3-1"}}, {CPU: &specs.LinuxCPU{Cpus: "0-99999999"}}, {CPU: &specs.LinuxCPU{Cpus: "a"}},
		{CPU: &specs.LinuxCPU{Cpus: ","}}, {Unified: map[string]string{"memory.high": "much"}}, {Unified: map[string]string{"cpu.max": "1 0"}},
	} {
		if got, err := Limits(&bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", got, err)
		}
	}
}

// TestAnnotated: annotations give the unit properties, and what is not understood
// is refused.
func TestAnnotated(t *testing.T) {
	got, err := Annotated(map[string]string{
		"org.systemd.property.KillSignal": "15", "org.systemd.property.TimeoutStopUSec": "uint64 10000000", "org.systemd.property.CollectMode": "'inactive-or-failed'",
		"org.systemd.property.After": `["a.service", 'b.service']`, "org.systemd.property.RuntimeMaxSec": "uint32 3", "org.systemd.property.SendSIGHUP": "true", "other": "x",
	})
	want := []Property{{"After", Texts{"a.service", "b.service"}}, {"CollectMode", Text("inactive-or-failed")}, {"KillSignal", Int(15)},
		{"RuntimeMaxUSec", Number(3000000)}, {"SendSIGHUP", Flag(true)}, {"TimeoutStopUSec", Number(10000000)}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	for name, value := range map[string]string{"KillSignal": "fifteen", "After": "[", "Before": "['a'", "X": "'a", "Y": "", "a.b": "1", "TimeoutSec": "'x'", "Z": "double 1.5", "Big": "99999999999", "NegSec": "-1"} {
		if got, err := Annotated(map[string]string{annotated + name: value}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s=%s: %v, %v", name, value, got, err)
		}
	}
}

// FuzzAnnotated: any text is a value or a fault.
func FuzzAnnotated(f *testing.F) {
	for _, s := range []string{"15", "uint64 1", "'x'", "['a', \"b\"]", "true", "[]", "['a',]", "[,]"} {
		f.Add("KillSec", s)
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		list, err := Annotated(map[string]string{annotated + name: value})
		if err == nil && (len(list) != 1 || list[0].Value == nil) {
			t.Fatalf("%q: %v", value, list)
		}
	})
}

// TestMessage: a call is marshalled as the D-Bus specification says, so that
// what reads messages finds it whole. That systemd does is seen with systemd.
func TestMessage(t *testing.T) {
	var w writer
	w.text("x.scope")
	w.text("fail")
	properties(&w, []Property{{"Delegate", Flag(true)}, {"PIDs", PIDs{7}}, {"TasksMax", Number(9)}, {"AllowedCPUs", Bytes{3}}, {"ExecStart", Command{"/bin/true", "true"}}})
	w.array(8, func() {})
	m := asked{path: manager, face: face, member: "StartTransientUnit", types: "ssa(sv)a(sa(sv))", body: w.b}.message(2)
	if len(w.b)%4 != 0 || m[0] != 'l' || m[1] != 1 {
		t.Fatalf("%s", hex.Dump(m))
	}
	rest, err := sizes(m[:headLength])
	if err != nil || rest+headLength != len(m) {
		t.Fatalf("%d of %d, %v", rest, len(m), err)
	}
	back, err := parse(m)
	if err != nil || back.member != "StartTransientUnit" || back.types != "ssa(sv)a(sa(sv))" || !strings.HasPrefix(string(back.body[4:]), "x.scope\x00") {
		t.Errorf("%+v, %v", back, err)
	}
}

// FuzzParse: no message makes the reader fail, or read what is not there.
func FuzzParse(f *testing.F) {
	var w writer
	w.text("a")
	f.Add(asked{path: "/", face: "f", member: "m", types: "s", body: w.b}.message(1))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parse(b)
		if err == nil {
			m.texts()
		}
	})
}
