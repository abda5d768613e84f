package docker

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"github.com/moby/moby/api/types/network"

	"fief/internal/words/fault"
)

func (d *door) networkRoutes() []route {
	return []route{
		on("GET /networks", d.networkList),
		on("GET /networks/", d.networkList),
		on("GET /networks/*", d.networkInspect),
		on("DELETE /networks/*", d.networkRemove),
		on("POST /networks/prune", d.networkPrune),
	}
}

// networkID is fixed for the two predefined networks: nothing about them is
// ever stored.
func networkID(name string) string {
	sum := sha256.Sum256([]byte("fief network " + name))
	return hex.EncodeToString(sum[:])
}

func predefined() []network.Network {
	made := func(name, driver string) network.Network {
		return network.Network{
			Name: name, ID: networkID(name), Created: time.Unix(0, 0).UTC(), Scope: "local", Driver: driver, EnableIPv4: true,
			IPAM:    network.IPAM{Driver: "default", Config: []network.IPAMConfig{}},
			Options: map[string]string{}, Labels: map[string]string{},
		}
	}
	return []network.Network{made("host", "host"), made("none", "null")}
}

func (d *door) networkList(w http.ResponseWriter, r *request) error {
	f, err := parseFilters(r.Form.Get("filters"), []string{"dangling", "driver", "id", "label", "name", "scope", "type"})
	if err != nil {
		return err
	}
	if _, err := f.truth("dangling", false); err != nil {
		return err
	}
	out := []network.Inspect{}
	for _, n := range predefined() {
		pass := f.any("driver", func(v string) bool { return v == n.Driver }) &&
			f.any("id", func(v string) bool { return strings.HasPrefix(n.ID, v) }) &&
			f.any("name", func(v string) bool { return strings.Contains(n.Name, v) }) &&
			f.any("scope", func(v string) bool { return v == n.Scope }) &&
			f.any("type", func(v string) bool { return v == "builtin" }) &&
			f.any("dangling", func(v string) bool { return !isTrue(v) }) && f.labels(nil)
		if pass {
			out = append(out, network.Inspect{Network: n, Containers: map[string]network.EndpointResource{}})
		}
	}
	return ok(w, out)
}

// findNetwork finds a network by name, id or unique id prefix.
func findNetwork(name string) (network.Network, error) {
	for _, n := range predefined() {
		if n.Name == name || len(name) >= 3 && strings.HasPrefix(n.ID, name) {
			return n, nil
		}
	}
	return network.Network{}, notFound("network %s not found", name)
}

func (d *door) networkInspect(w http.ResponseWriter, r *request) error {
	n, err := findNetwork(r.name)
	if err != nil {
		return err
	}
	list, err := d.engine.List(r.Context())
	if err != nil {
		return err
	}
	out := network.Inspect{Network: n, Containers: map[string]network.EndpointResource{}}
	for _, c := range list {
		if running(c) && c.Network == n.Name {
			out.Containers[c.ID] = network.EndpointResource{Name: c.Name}
		}
	}
	return ok(w, out)
}

func (d *door) networkRemove(_ http.ResponseWriter, r *request) error {
	n, err := findNetwork(r.name)
	if err != nil {
		return err
	}
	return fault.Say(fault.Denied, n.Name+" is a pre-defined network and cannot be removed")
}

// networkPrune has nothing to remove: the predefined networks stay.
func (d *door) networkPrune(w http.ResponseWriter, r *request) error {
	if _, err := parseFilters(r.Form.Get("filters"), []string{"label", "label!", "until"}); err != nil {
		return err
	}
	return ok(w, struct{ NetworksDeleted []string }{})
}
