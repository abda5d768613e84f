package docker

import (
	"strings"
	"testing"
)

// TestNetworkAPI walks a network through its life by the API.
func TestNetworkAPI(t *testing.T) {
	f, socket := serve(t)
	c := raw(socket)
	id := makeOne(t, socket, `{"Image":"busybox","ExposedPorts":{"81/tcp":{}},"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8080"},{"HostPort":"9000-9010"}],"53/udp":[{}]},`+
		`"ExtraHosts":["a:1.2.3.4"],"Dns":["9.9.9.9"],"DnsSearch":["x"],"PublishAllPorts":true}}`)
	n := f.asked.Net
	if len(n.Ports) != 3 || n.Ports[1].Host != 8080 || n.Ports[2].Host != 9000 || n.Ports[2].HostEnd != 9010 || n.Ports[0].Proto != "udp" || !n.PublishAll ||
		len(n.Exposed) != 3 || n.Hosts[0] != "a:1.2.3.4" || n.DNS[0] != "9.9.9.9" || f.asked.Network != "bridge" || !f.asked.NetworkDefault {
		t.Errorf("asked %+v", n)
	}
	for _, tc := range []struct {
		method, path, body string
		code               int
		want               string
	}{
		{"POST", "/networks/create", `{"Name":"mine","Driver":"bridge","EnableIPv6":true,"IPAM":{"Config":[{"Subnet":"10.1.0.0/24","Gateway":"10.1.0.1","AuxiliaryAddresses":{"x":"10.1.0.9"}}]},"Labels":{"a":"b"}}`, 201, `"Warning":"a firewall"`},
		{"POST", "/networks/create", `{"Name":"x","IPAM":{"Driver":"odd"}}`, 501, `IPAM driver odd`},
		{"POST", "/networks/create", `{"Name":"x","Scope":"swarm"}`, 501, `Scope swarm`},
		{"GET", "/networks/mine", ``, 200, `"Subnet":"10.1.0.0/24"`},
		{"GET", "/networks?filters=%7B%22label%22%3A%5B%22a%3Db%22%5D%7D", ``, 200, `"Name":"mine"`},
		{"GET", "/networks?filters=%7B%22dangling%22%3A%5B%22true%22%5D%7D", ``, 200, `"Name":"mine"`},
		{"GET", "/networks?filters=%7B%22type%22%3A%5B%22builtin%22%5D%7D", ``, 200, `"Name":"none"`},
		{"POST", "/networks/mine/connect", `{"Container":"` + id + `","EndpointConfig":{"Aliases":["w"],"IPAMConfig":{"IPv4Address":"10.1.0.2"}}}`, 200, ``},
		{"POST", "/networks/mine/connect", `{"Container":"` + id + `","EndpointConfig":{"IPAMConfig":{"IPv4Address":"fd00::1"}}}`, 400, `invalid IP address`},
		{"GET", "/containers/" + id + "/json", ``, 200, `"IPAddress":"10.1.0.2"`},
		{"GET", "/containers/" + id + "/json", ``, 200, `"PortBindings":{"53/udp":[{"HostIp":"","HostPort":""}]`},
		{"POST", "/networks/mine/disconnect", `{"Container":"` + id + `"}`, 200, ``},
		{"POST", "/networks/nowhere/connect", `{"Container":"` + id + `"}`, 404, `network nowhere not found`},
		{"DELETE", "/networks/bridge", ``, 403, `pre-defined`},
		{"DELETE", "/networks/mine", ``, 204, ``},
		{"GET", "/networks/mine", ``, 404, `network mine not found`},
		{"POST", "/networks/create", `{"Name":"old"}`, 201, `"Id":`},
		{"POST", "/networks/prune", ``, 200, `"NetworksDeleted":["old"]`},
		{"GET", "/containers/json?filters=%7B%22expose%22%3A%5B%22x%22%5D%7D", ``, 400, `invalid filter`},
	} {
		res, body := get(t, c, tc.method, "/v1.51"+tc.path, tc.body)
		if res.StatusCode != tc.code || !strings.Contains(body, tc.want) {
			t.Errorf("%s %s %s: %d %s", tc.method, tc.path, tc.body, res.StatusCode, body)
		}
	}
}
