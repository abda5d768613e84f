package docker

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"fief/internal/testenv"
)

// verb is a command line of the docker client and what it says, as a regular
// expression of both streams, and its exit code.
type verb struct {
	line string
	says string
	code int
}

// tell runs the verbs one after another.
func tell(t *testing.T, d *testenv.Daemon, verbs []verb) {
	t.Helper()
	for _, v := range verbs {
		cmd := d.Command(t, "sh", "-c", "docker "+v.line+" 2>&1")
		out, _, code := testenv.Output(t, cmd)
		if out = strings.TrimSuffix(out, "\n"); code != v.code || !regexp.MustCompile(`^(?:`+v.says+`)$`).MatchString(out) {
			t.Errorf("docker %s: exit %d, want %d\n%s\nwant /%s/", v.line, code, v.code, out, v.says)
		}
	}
}

func startForVerbs(t *testing.T) *testenv.Daemon {
	t.Helper()
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("tool: no docker client")
	}
	d := testenv.Start(t)
	d.Busybox(t)
	return d
}

const id = `[0-9a-f]{64}`

// TestNetworkVerbs: docker network, as its users know it.
func TestNetworkVerbs(t *testing.T) {
	d := startForVerbs(t)
	tell(t, d, []verb{
		{`network inspect -f '{{(index .IPAM.Config 0).Gateway}} {{(index .IPAM.Config 0).Subnet}}' bridge`, `172\.\d+\.0\.1 172\.\d+\.0\.0/16`, 0},
		{`network ls --format '{{.Name}} {{.Driver}} {{.Scope}}'`, "bridge bridge local\nhost host local\nnone null local", 0},
		{`network create one`, id, 0},
		{`network create --label x=y --label k --subnet 10.9.0.0/24 --gateway 10.9.0.1 --ip-range 10.9.0.128/25 --aux-address p=10.9.0.5 -o com.docker.network.bridge.name=nine --internal --attachable two`, id, 0},
		{`network create one`, `Error response from daemon: network with name one already exists`, 1},
		{`network create bridge`, `Error response from daemon: operation is not permitted on predefined bridge network`, 1},
		{`network create --subnet 10.9.0.0/25 three`, "Error response from daemon: invalid pool request: Pool overlaps with other one on this address space\n--subnet 10.9.0.0/25 overlaps 10.9.0.0/24 of network two: choose another", 1},
		{`network create --driver odd three`, `Error response from daemon: could not find plugin odd in v1 plugin registry: plugin not found`, 1},
		{`network ls --filter driver=bridge --filter label=x=y --format '{{.Name}} {{.Internal}} {{.IPv6}} {{.Labels}}'`, `two true false (k=,x=y|x=y,k=)`, 0},
		{`network ls -q --no-trunc --filter name=one --filter type=custom --filter scope=local`, id, 0},
		{`network ls --filter dangling=true --format '{{.Name}}'`, "one\ntwo", 0},
		{`network ls --filter odd=1`, `Error response from daemon: invalid filter 'odd'`, 1},
		{`network inspect -f '{{json .IPAM.Config}} {{.Attachable}} {{.Options}}' two`,
			`\[\{"Subnet":"10.9.0.0/24","IPRange":"10.9.0.128/25","Gateway":"10.9.0.1","AuxiliaryAddresses":\{"p":"10.9.0.5"\}\}\] true map\[com.docker.network.bridge.name:nine\]`, 0},
		{`network inspect one nowhere -f '{{.Name}}'`, "one\nError response from daemon: network nowhere not found", 1},
		{`run -d --name aa --network one --network-alias al busybox sleep 1000`, id, 0},
		{`network connect --alias x --ip 10.9.0.77 two aa`, ``, 0},
		{`network connect two aa`, `Error response from daemon: endpoint with name aa already exists in network two`, 1},
		{`network connect nowhere aa`, `Error response from daemon: network nowhere not found`, 1},
		{`network connect one nobody`, `Error response from daemon: No such container: nobody`, 1},
		{`inspect -f '{{.NetworkSettings.Networks.two.IPAddress}} {{.NetworkSettings.Networks.two.DNSNames}} {{.NetworkSettings.Networks.one.Aliases}}' aa`, `10\.9\.0\.77 \[aa x [0-9a-f]{12}\] \[al\]`, 0},
		{`network inspect -f '{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}' two`, `aa 10\.9\.0\.77/24`, 0},
		{`run --rm --network name=one,driver-opt=com.docker.network.endpoint.ifname=net7 --network two busybox ls /sys/class/net`, "eth0\nlo\nnet7", 0},
		{`run --rm --network name=one,driver-opt=com.docker.network.endpoint.ifname=eth0 --network two busybox ls /sys/class/net`, "eth0\neth1\nlo", 0},
		{`run --rm --network name=one,driver-opt=com.docker.network.endpoint.ifname=a/b busybox true`,
			`(?s)docker: Error response from daemon: invalid config for network one: invalid endpoint settings:\ninvalid interface name "a/b".*`, 125},
		{`run --rm --network name=one,driver-opt=com.docker.network.endpoint.ifname=x --network name=two,driver-opt=com.docker.network.endpoint.ifname=x busybox true`,
			`(?s)docker: Error response from daemon: .*the container has a network device x already.*`, 125},
		{`run --rm --network name=one,driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1 busybox true`,
			`(?s)docker: Error response from daemon: .*option com.docker.network.endpoint.sysctls is not supported.*`, 125},
		{`network connect --driver-opt com.docker.network.endpoint.ifname=late bridge aa`, ``, 0},
		{`exec aa ls /sys/class/net`, "eth0\neth1\nlate\nlo", 0},
		{`network disconnect bridge aa`, ``, 0},
		{`network rm two`, `Error response from daemon: error while removing network: network two has active endpoints \(name:"aa" id:"[0-9a-f]{12}"\)\n.*`, 1},
		{`network rm host`, `(?s)Error response from daemon: host is a pre-defined network and cannot be removed.*`, 1},
		{`network rm nowhere`, `(?s)Error response from daemon: network nowhere not found.*`, 1},
		{`network disconnect two nobody`, `Error response from daemon: No such container: nobody`, 1},
		{`network disconnect two aa`, ``, 0},
		{`network disconnect two aa`, `Error response from daemon: container ` + id + ` is not connected to network two`, 1},
		{`ps --filter network=one --format '{{.Names}} {{.Networks}}'`, `aa one`, 0},
		{`network prune -f --filter label=none`, ``, 0},
		{`network prune -f --filter label!=none`, "Deleted Networks:\ntwo\n", 0},
		{`rm -f aa`, `aa`, 0},
		{`network prune -f`, "Deleted Networks:\none\n", 0},
		{`events --since 10m --until $(($(date +%s)+1)) --filter type=network --format '{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.type}}'`,
			`(?s)create one bridge\ncreate two bridge\nconnect one bridge\nconnect two bridge\n.*connect bridge bridge\ndisconnect bridge bridge\ndisconnect two bridge\ndestroy two bridge\ndisconnect one bridge\ndestroy one bridge`, 0},
	})
}

// TestVolumeVerbs: docker volume, likewise.
func TestVolumeVerbs(t *testing.T) {
	d := startForVerbs(t)
	tell(t, d, []verb{
		{`volume create`, id, 0},
		{`volume create --label a=b --label k one`, `one`, 0},
		{`volume create one`, `one`, 0},
		{`volume create --driver odd two`, `Error response from daemon: create two: error looking up volume plugin odd: plugin "odd" not found`, 1},
		{`volume create --opt odd=1 two`, `Error response from daemon: create two: invalid option: "odd"`, 1},
		{`volume create --opt type=tmpfs --opt device=tmpfs --opt o=size=1m two`, `two`, 0},
		{`volume ls --filter label=a=b --format '{{.Driver}} {{.Name}} {{.Scope}} {{.Labels}}'`, `local one local (a=b,k=|k=,a=b)`, 0},
		{`volume ls -q --filter label=a=c`, ``, 0},
		{`volume ls -q --filter name=^o --filter driver=local --filter dangling=true`, `one`, 0},
		{`volume ls -q --filter odd=1`, `Error response from daemon: invalid filter 'odd'`, 1},
		{`volume inspect -f '{{.Labels}} {{.Options}}' one two`, `map\[a:b k:\] map\[\]\nmap\[\] map\[device:tmpfs o:size=1m type:tmpfs\]`, 0},
		{`volume inspect nothing`, `\[\]\nError response from daemon: get nothing: no such volume`, 1},
		{`volume update one`, `can only update cluster volumes`, 1},
		{`volume rm nothing`, `Error response from daemon: get nothing: no such volume`, 1},
		{`volume rm -f nothing`, `nothing`, 0},
		{`create --name aa -v one:/one -v /nameless --mount type=volume,src=three,dst=/three,volume-label=z=1,volume-nocopy,volume-opt=type=tmpfs,volume-opt=device=tmpfs busybox sleep 1000`, id, 0},
		{`volume rm one`, `Error response from daemon: remove one: volume is in use - \[` + id + `\]`, 1},
		{`volume inspect -f '{{.Labels}} {{.Options}}' three`, `map\[z:1\] map\[device:tmpfs type:tmpfs\]`, 0},
		{`ps -a --filter volume=one --format '{{.Names}} {{.LocalVolumes}}'`, `aa 3`, 0},
		{`volume prune -f`, `Deleted Volumes:\n` + id + `\n\nTotal reclaimed space: 0B`, 0},
		{`volume prune -af --filter label!=a`, `Deleted Volumes:\ntwo\n\nTotal reclaimed space: 0B`, 0},
		{`rm -v aa`, `aa`, 0},
		{`volume ls -q`, "one\nthree", 0},
		{`volume prune -af`, "Deleted Volumes:\none\nthree\n\nTotal reclaimed space: 0B", 0},
	})
}
