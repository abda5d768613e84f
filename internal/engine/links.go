package engine

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"fief/internal/words/record"
)

// linked is a container's environment after what it is told of those it is linked
// with: as they are now, for its program, and for each of its sessions, as in Docker.
func (e *Engine) linked(rec record.Container) []string {
	return slices.Concat(e.linkEnv(rec), rec.Env)
}

// linkEnv is the environment that a container gets of those it is linked with on
// the default network, as in Docker ("Legacy container links"): where their
// exposed ports are, and their own environment. What the container sets itself is
// left out.
func (e *Engine) linkEnv(rec record.Container) []string {
	var out []string
	if len(rec.Net.Endpoints) == 0 {
		return nil
	}
	for _, l := range rec.Net.Links {
		name, alias, ok := strings.Cut(l, ":")
		if !ok {
			alias = name
		}
		other, err := e.table.find(name)
		if err != nil {
			continue // linkLines says so
		}
		out = append(out, envOf(rec.Name, alias, rec.Net.Endpoints[0].NetworkID, other.record())...)
	}
	set := map[string]bool{}
	for _, v := range rec.Env {
		name, _, _ := strings.Cut(v, "=")
		set[name] = true
	}
	return slices.DeleteFunc(out, func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return set[name]
	})
}

// ofItsOwn are variables that every container has, and none tells another.
var ofItsOwn = []string{"PATH", "HOME", "HOSTNAME", "TERM", "container"}

// envOf is what a container on a network tells the one that links it by an alias.
func envOf(linker, alias, networkID string, other record.Container) []string {
	i := slices.IndexFunc(other.Net.Endpoints, func(ep record.Endpoint) bool { return ep.NetworkID == networkID && ep.Up() })
	if i < 0 || !other.Net.Endpoints[i].IP4.IsValid() {
		return nil
	}
	ip := other.Net.Endpoints[i].IP4.Addr().String()
	prefix := strings.ToUpper(strings.ReplaceAll(alias, "-", "_"))
	out := []string{prefix + "_NAME=/" + linker + "/" + alias}
	type exposed struct {
		port  int
		proto string
	}
	var ports []exposed
	for _, key := range other.Net.Exposed {
		number, proto, _ := strings.Cut(key, "/")
		if n, err := strconv.Atoi(number); err == nil {
			ports = append(ports, exposed{n, cmp.Or(proto, "tcp")})
		}
	}
	slices.SortFunc(ports, func(a, b exposed) int { // of one number TCP first
		return cmp.Or(cmp.Compare(a.port, b.port), cmp.Compare(a.proto, b.proto))
	})
	for i, p := range ports {
		number := strconv.Itoa(p.port)
		url := p.proto + "://" + ip + ":" + number
		if i == 0 {
			out = append(out, prefix+"_PORT="+url)
		}
		at := prefix + "_PORT_" + number + "_" + strings.ToUpper(p.proto)
		out = append(out, at+"="+url, at+"_ADDR="+ip, at+"_PORT="+number, at+"_PROTO="+p.proto)
	}
	for _, v := range other.Env {
		name, _, ok := strings.Cut(v, "=")
		if ok && !slices.Contains(ofItsOwn, name) {
			out = append(out, prefix+"_ENV_"+v)
		}
	}
	return out
}
