package cmdline

import (
	"net/netip"
	"strings"
	"testing"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var addrs = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

func TestNetworks(t *testing.T) {
	run := func(words string) (ask.Container, error) {
		r, err := ParseRun(append(strings.Fields(words), "img"), Client{Dir: "/"})
		return r.Ask, err
	}
	for words, want := range map[string]record.Net{
		"": {},
		"--network a --network name=b,alias=x,alias=y,ip=10.1.2.3,gw-priority=-2,driver-opt=k=v": {Endpoints: []record.Endpoint{{Network: "a"},
			{Network: "b", Aliases: []string{"x", "y"}, WantIP4: netip.MustParseAddr("10.1.2.3"), GwPriority: -2, DriverOpts: map[string]string{"k": "v"}}}},
		"--network a --ip6 fd00::5 --network-alias z --mac-address 02:00:00:00:00:01": {Endpoints: []record.Endpoint{
			{Network: "a", Aliases: []string{"z"}, WantIP6: netip.MustParseAddr("fd00::5"), WantMAC: "02:00:00:00:00:01"}}},
		"-p 8080:80 -P --expose 1-2/udp": {Ports: []record.Port{{Proto: "tcp", Container: 80, Host: 8080}}, PublishAll: true, Exposed: []string{"1/udp", "2/udp", "80/tcp"}},
		"--add-host a:1.2.3.4 --add-host=b=[::1] --add-host c:host-gateway --dns 9.9.9.9 --dns-search x --dns-opt ndots:1": {
			Hosts: []string{"a:1.2.3.4", "b:::1", "c:host-gateway"}, DNS: []string{"9.9.9.9"}, DNSSearch: []string{"x"}, DNSOptions: []string{"ndots:1"}},
		"--link db:database": {Links: []string{"db:database"}},
	} {
		if got, err := run(words); err != nil || !cmp.Equal(got.Net, want, addrs) {
			t.Errorf("%q: %v\n%s", words, err, cmp.Diff(want, got.Net, addrs))
		}
	}
	for _, words := range []string{
		"--network none --network a", "--network host --ip 10.0.0.1", "--network none --network-alias x", "--network container:a -p 80", "--network name=",
		"--network x=y", "--ip nonsense", "--ip fd00::1", "--network alias=a", "-p 0", "-p 1:2:3:4", "--expose x", "--add-host a", "--dns name",
		"--network container:a --dns 1.1.1.1", "--network name=a,mac-address=02:00:00:00:00:01 --mac-address 02:00:00:00:00:02",
	} {
		if _, err := run(words); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", words, err)
		}
	}
}
