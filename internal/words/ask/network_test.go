package ask

import (
	"net/netip"
	"reflect"
	"testing"

	"fief/internal/words/record"
)

func TestParsePort(t *testing.T) {
	ip := netip.MustParseAddr
	for spec, want := range map[string][]record.Port{
		"80":                    {{Proto: "tcp", Container: 80}},
		"8080:80":               {{Proto: "tcp", Container: 80, Host: 8080}},
		"127.0.0.1:8080:80/UDP": {{Proto: "udp", Container: 80, Host: 8080, HostIP: ip("127.0.0.1")}},
		"127.0.0.1::80":         {{Proto: "tcp", Container: 80, HostIP: ip("127.0.0.1")}},
		"[::1]:80:81/sctp":      {{Proto: "sctp", Container: 81, Host: 80, HostIP: ip("::1")}},
		"[::]:0:81":             {{Proto: "tcp", Container: 81, HostIP: ip("::")}},
		"::1:80:81":             {{Proto: "tcp", Container: 81, Host: 80, HostIP: ip("::1")}},
		"8000-9000:80":          {{Proto: "tcp", Container: 80, Host: 8000, HostEnd: 9000}},
		"8000-8001:80-81":       {{Proto: "tcp", Container: 80, Host: 8000}, {Proto: "tcp", Container: 81, Host: 8001}},
		"80-81":                 {{Proto: "tcp", Container: 80}, {Proto: "tcp", Container: 81}},
	} {
		got, err := ParsePort(spec)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, %v", spec, got, err)
		}
	}
	for _, spec := range []string{"", "0", "x", "80/x", "70000", "1:2:3", "8000-8002:80-81", "9-8:80", "1.2.3:80:80", ":::", "80-70:1", "fe80::1%eth0:1:2", "-1:80"} {
		if got, err := ParsePort(spec); err == nil {
			t.Errorf("%q: %v", spec, got)
		}
	}
}

// FuzzParsePort: whatever is typed, a port that comes out is one.
func FuzzParsePort(f *testing.F) {
	for _, s := range []string{"80", "[::1]:80:80/udp", "1-2:3-4", "1.2.3.4::5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ports, err := ParsePort(s)
		for _, p := range ports {
			if err != nil || p.Container == 0 || p.HostEnd != 0 && p.HostEnd < p.Host || p.HostIP.Is4In6() {
				t.Errorf("%q: %+v, %v", s, p, err)
			}
		}
		ParseExpose(s)
		CheckHost(s)
	})
}
