package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// The cases are those of runc's idmap.bats and userns.bats that TestIdmap and
// TestJoin do not have.

// owned makes a directory beside the bundle with the files 0 to 9, each of the
// uid and gid of its name.
func (b *bench) owned(name string) string {
	b.t.Helper()
	dir := filepath.Join(b.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	for id := range 10 {
		file := filepath.Join(dir, strconv.Itoa(id))
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			b.t.Fatal(err)
		}
		if err := os.Chown(file, id, id); err != nil {
			b.t.Fatal(err)
		}
	}
	return dir
}

// extents reads "container:host:size …".
func extents(text string) (out []specs.LinuxIDMapping) {
	for _, one := range strings.Fields(text) {
		var n [3]uint32
		for i, number := range strings.Split(one, ":") {
			v, _ := strconv.ParseUint(number, 10, 32)
			n[i] = uint32(v)
		}
		out = append(out, specs.LinuxIDMapping{ContainerID: n[0], HostID: n[1], Size: n[2]})
	}
	return out
}

// hosted takes the user namespace of a container away.
func hosted(s *specs.Spec) {
	s.Linux.Namespaces, s.Linux.UIDMappings, s.Linux.GIDMappings = s.Linux.Namespaces[1:], nil, nil
}

// TestIdmapShapes: maps of one and of many extents, with holes and crossed, the
// same and different ones on several mounts, with and without a user namespace.
func TestIdmapShapes(t *testing.T) {
	b := newBench(t)
	dir := b.owned("owned")
	bind := func(target, uids, gids string, options ...string) specs.Mount {
		return specs.Mount{Destination: target, Type: "bind", Source: dir, Options: append([]string{"bind"}, options...), UIDMappings: extents(uids), GIDMappings: extents(gids)}
	}
	with := func(own bool, list ...specs.Mount) func(*specs.Spec) {
		return func(s *specs.Spec) {
			if !own {
				hosted(s)
			}
			s.Mounts = append(s.Mounts, list...)
		}
	}
	const first = "stat -c %u:%g /m/0 /m/1 /m/2"
	const whole = "0:100000:65536"
	b.sees("100000:100000 100001:100001 100002:100002", first, with(false, bind("/m", whole, whole)))
	b.sees("0:0 1:1 2:2", first, with(true, bind("/m", "0:524288:65536", "0:524288:65536")))
	// Uids and gids apart, crossed, and those without an extent nobody's.
	b.sees("2:5 0:65534 65534:6", first, with(true, bind("/m", "0:524290:1 1:524288:1", "0:524293:1 2:524294:1")))
	b.sees("300:300 65534:65534 0:0", first, with(false, bind("/m", "0:300:1 2:0:1", "0:300:1 2:0:1")))
	many := ""
	for id := range 10 {
		many += " " + strconv.Itoa(id) + ":" + strconv.Itoa(524288+1000-10*id) + ":1"
	}
	b.sees("1000:1000 990:990 980:980 910:910", first+" /m/9", with(true, bind("/m", many, many)))
	// Several mounts of one directory: with one map, with two, and with none.
	const three = "stat -c %u /m/1 /n/1 /o/1"
	b.sees("100001 100001 1", three, with(false, bind("/m", whole, whole), bind("/n", whole, whole), bind("/o", "", "")))
	b.sees("65534 20001 65534", three, with(true, bind("/m", "0:624288:10", "0:624288:10"), bind("/n", "0:544288:10", "0:544288:10"), bind("/o", "", ""),
		specs.Mount{Destination: "/p", Type: "tmpfs"})) // ids past the container's own are nobody's
	// Relative sources and propagation, as of any bind.
	b.sees("100001 shared", "stat -c %u /m/1; while read a b c d dir opt rest; do case $dir,$rest in /m,shared:*) echo shared;; esac; done < /proc/self/mountinfo",
		func(s *specs.Spec) {
			m := bind("/m", whole, whole, "shared")
			m.Source = "../owned"
			with(false, m)(s)
		})
	for why, m := range map[string]specs.Mount{
		"go together":        bind("/m", "", whole),
		"overlap":            bind("/m", "0:1000:10 5:2000:10", whole),
		"only binds are map": {Destination: "/m", Type: "tmpfs", UIDMappings: extents(whole), GIDMappings: extents(whole)},
	} {
		b.refuses(why, with(true, m))
	}
}

// TestIdmapSpelled: maps in crun's spelling, which podman sends, are those of
// uidMappings; ranges with @ are relative to the container's.
func TestIdmapSpelled(t *testing.T) {
	b := newBench(t)
	dir := b.owned("owned")
	with := func(option string) func(*specs.Spec) {
		return mounted(specs.Mount{Destination: "/m", Type: "bind", Source: dir, Options: []string{"rbind", option}})
	}
	const look = "stat -c %u:%g /m/0 /m/1 /m/2"
	b.sees("0:2 1:1 2:0", look, with("idmap=uids=0-524288-10;gids=0-524290-1#1-524289-1#2-524288-1"))
	b.sees("5:0 6:1 7:2", look, with("ridmap=gids=@0-0-10;uids=@0-5-10"))
	for why, option := range map[string]string{
		"go together": "idmap=uids=0-1-2", "not three numbers": "idmap=uids=0-1;gids=0-1-1", "not a number": "idmap=uids=0-x-1;gids=0-1-1",
		"no one range": "idmap=uids=@0-65530-10;gids=@0-0-10", "neither uids": "idmap=x=0-0-1", "beyond the last": "idmap=uids=4294967295-0-2;gids=0-0-1",
	} {
		b.refuses(why, with(option))
	}
	b.refuses("two id maps", func(s *specs.Spec) {
		with("idmap=uids=0-1-1;gids=0-1-1")(s)
		s.Mounts[len(s.Mounts)-1].UIDMappings = extents("0:1:1")
	})
}

// FuzzMaps: maps are read as they are written, or refused.
func FuzzMaps(f *testing.F) {
	f.Add("uids=0-1-10#10-20-1;gids=@0-0-10")
	f.Add("gids=;uids=@")
	f.Fuzz(func(t *testing.T, text string) {
		own := extents("0:1000:10 10:5000:10")
		uids, gids, err := parseMaps(text, own, own)
		if err != nil {
			return
		}
		if len(uids) == 0 || len(gids) == 0 {
			t.Fatalf("%q: %v, %v", text, uids, gids)
		}
		if len(uids) != 1 || len(gids) != 1 || strings.Contains(text, "@") || strings.ContainsAny(text, "+") {
			return
		}
		say := func(m specs.LinuxIDMapping) string {
			return strconv.Itoa(int(m.ContainerID)) + "-" + strconv.Itoa(int(m.HostID)) + "-" + strconv.Itoa(int(m.Size))
		}
		again, more, err := parseMaps("uids="+say(uids[0])+";gids="+say(gids[0]), nil, nil)
		if err != nil || again[0] != uids[0] || more[0] != gids[0] {
			t.Errorf("%q: %v %v, then %v %v, %v", text, uids, gids, again, more, err)
		}
	})
}

// TestIdmapJoined: a bind takes the maps of a user namespace that is joined.
func TestIdmapJoined(t *testing.T) {
	b := newBench(t)
	dir := b.owned("owned")
	pidFile := filepath.Join(b.dir, "pid")
	b.config(func(s *specs.Spec) {
		s.Process.Args = []string{"sleep", "1000"}
		s.Linux.UIDMappings, s.Linux.GIDMappings = extents("0:524288:2 2:524388:10"), extents("0:524288:100")
	})
	t.Cleanup(func() { b.run("delete", "--force", "one") })
	b.ok("create", "--pid-file", pidFile, "joined")
	t.Cleanup(func() { b.run("delete", "--force", "joined") })
	b.ok("start", "joined")
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, option := range []string{"idmap", "ridmap"} {
		b.sees("1:1 2:2 9:9", "stat -c %u:%g /m/1 /m/2 /m/9", func(s *specs.Spec) {
			s.Linux.Namespaces[0].Path = "/proc/" + string(pid) + "/ns/user"
			s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/m", Type: "bind", Source: dir, Options: []string{"rbind", option}})
		})
	}
	// A network namespace that the joined user namespace does not own.
	b.sees("0", "id -u", func(s *specs.Spec) {
		for i := range s.Linux.Namespaces {
			n := &s.Linux.Namespaces[i]
			switch n.Type {
			case specs.UserNamespace:
				n.Path = "/proc/" + string(pid) + "/ns/user"
			case specs.NetworkNamespace:
				n.Path = "/proc/self/ns/net"
			}
		}
		s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
	})
}
