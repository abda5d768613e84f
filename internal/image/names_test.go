package image

import (
	"fmt"
	"strings"
	"testing"

	"fief/internal/image/registrytest"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

func TestResolve(t *testing.T) {
	w := newWorld(t)
	img := w.load(t, registrytest.Plain(registrytest.Layer("a", "1")).DockerArchive("busybox:latest", "quay.io/x/y:z"))[0]
	hex := img.ID[len("sha256:"):]
	for _, name := range []string{"busybox", "busybox:latest", "library/busybox", "docker.io/library/busybox:latest", "quay.io/x/y:z",
		img.ID, hex, hex[:12], hex[:1], "sha256:" + hex[:10], img.Manifest} {
		got, err := w.Resolve(name)
		if err != nil || got.ID != img.ID {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, says := range map[string]string{
		"busybox:1":                           "No such image: busybox:1",
		"nothing":                             "No such image: nothing:latest",
		"docker.io/a/b":                       "No such image: a/b:latest",
		strings.Repeat("0", 64):               "No such image: " + strings.Repeat("0", 64),
		"sha256:" + strings.Repeat("0", 64):   "No such image: sha256:" + strings.Repeat("0", 64),
		"x@sha256:" + strings.Repeat("0", 64): "No such image: x@sha256:" + strings.Repeat("0", 64),
	} {
		_, err := w.Resolve(name)
		if !fault.Is(err, fault.NotFound) || err.Error() != says {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"", "UPPER", "a b", "a:b:c", "-", "http://x/y"} {
		_, err := w.Resolve(name)
		wantClass(t, err, fault.Invalid, "invalid reference format")
	}
}

func TestAmbiguousPrefix(t *testing.T) {
	w := newWorld(t)
	first := map[byte]int{}
	for i := range 17 { // one digit too many
		img := w.load(t, registrytest.Plain(registrytest.Layer("a", fmt.Sprint(i))).DockerArchive())[0]
		first[img.ID[len("sha256:")]]++
	}
	for digit, n := range first {
		_, err := w.Resolve(string(digit))
		if n > 1 {
			wantClass(t, err, fault.Invalid, "several ids")
		} else if err != nil {
			t.Error(err)
		}
	}
}

func TestHostImage(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"host", "host:latest"} {
		img, err := w.Resolve(name)
		if err != nil || !img.Host || img.ID != "" || img.Names[0] != "host:latest" || len(img.Config.Cmd) == 0 {
			t.Errorf("%+v %v", img, err)
		}
	}
	if _, err := w.Resolve("host:other"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	wantClass(t, w.Tag("host", "x"), fault.Invalid, "built in")
	_, err := w.Remove("host", true, nobody)
	wantClass(t, err, fault.Invalid, "built in")
	w.load(t, registrytest.Plain(registrytest.Layer("a", "1")).DockerArchive("host:latest"))
	if img, err := w.Resolve("host"); err != nil || img.Host {
		t.Errorf("a real image does not win: %+v %v", img, err)
	}
}

func TestTag(t *testing.T) {
	w := newWorld(t)
	a := w.load(t, registrytest.Plain(registrytest.Layer("a", "1")).DockerArchive("a:1"))[0]
	b := w.load(t, registrytest.Plain(registrytest.Layer("b", "1")).DockerArchive("b:1"))[0]
	for _, c := range [][2]string{{"a:1", "x"}, {b.ID, "x:latest"}, {a.ID[7:19], "reg.example:5000/p/q:r"}} {
		if err := w.Tag(c[0], c[1]); err != nil {
			t.Fatal(err)
		}
	}
	if got, _ := w.Resolve("x"); got.ID != b.ID {
		t.Error("the tag did not move")
	}
	w.reopen(t)
	if got, _ := w.Resolve(a.ID); strings.Join(got.Names, " ") != "docker.io/library/a:1 reg.example:5000/p/q:r" {
		t.Errorf("%v", got.Names)
	}
	w.unchanged(t, func() {
		wantClass(t, w.Tag("no", "x"), fault.NotFound, "No such image: no:latest")
		wantClass(t, w.Tag("a:1", "UPPER"), fault.Invalid, "")
		wantClass(t, w.Tag("a:1", "x@"+a.ID), fault.Invalid, "refusing to create a tag with a digest reference")
		wantClass(t, w.Tag("a:1", "sha256:x"), fault.Invalid, "ambiguous tag")
	})
}

func TestFamiliar(t *testing.T) {
	for in, want := range map[string]string{"docker.io/library/a:1": "a:1", "docker.io/x/a:1": "x/a:1", "quay.io/a:1": "quay.io/a:1", "a b": "a b"} {
		if got := Familiar(in); got != want {
			t.Errorf("%s → %s", in, got)
		}
	}
}

// Docker's rules for removing, in its words.
func TestRemove(t *testing.T) {
	base, top := registrytest.Layer("base", "1"), registrytest.Layer("top", "1")
	setup := func(t *testing.T) (*world, record.Image, record.Image) {
		w := newWorld(t)
		a := w.load(t, registrytest.Plain(base).DockerArchive("a:1"))[0]
		b := w.load(t, registrytest.Plain(base, top).DockerArchive("b:1", "b:2", "other/b:3"))[0]
		return w, a, b
	}
	users := func(string) []Use { return []Use{{ID: strings.Repeat("c", 64)}} }
	running := func(string) []Use {
		return []Use{{ID: strings.Repeat("c", 64)}, {ID: strings.Repeat("d", 64), Running: true}}
	}
	hex := func(img record.Image) string { return img.ID[7:19] }
	say := func(r []record.Removed) string {
		var all []string
		for _, x := range r {
			all = append(all, x.Untagged+strings.Replace(x.Deleted, "sha256:", "-", 1)[:min(13, len(x.Deleted))])
		}
		return strings.Join(all, " ")
	}
	t.Run("name by name", func(t *testing.T) {
		w, _, b := setup(t)
		for _, step := range [][2]string{{"b:1", "b:1"}, {"other/b:3", "other/b:3"}, {"b:2", "b:2 -" + hex(b) + " -" + b.Layers[1].DiffID[7:19]}} {
			r, err := w.Remove(step[0], false, nobody)
			if err != nil || say(r) != step[1] {
				t.Errorf("%s: %s %v", step[0], say(r), err)
			}
		}
		if !w.layers.Has(b.Layers[0].DiffID) || w.layers.Has(b.Layers[1].DiffID) {
			t.Error("layers")
		}
		w.unchanged(t, func() {
			_, err := w.Remove("b:2", true, nobody)
			wantClass(t, err, fault.NotFound, "No such image: b:2")
		})
		if _, err := w.Remove("a:1", false, nobody); err != nil || len(w.index.all)+len(w.layers.tars) != 0 {
			t.Errorf("%v %s", err, w.state(t))
		}
	})
	t.Run("used name", func(t *testing.T) {
		w, a, b := setup(t)
		w.unchanged(t, func() {
			_, err := w.Remove("a:1", false, users)
			wantClass(t, err, fault.Conflict, `conflict: unable to remove repository reference "a:1" (must force) - container cccccccccccc is using its referenced image `+hex(a))
		})
		if r, err := w.Remove("b:1", false, users); err != nil || say(r) != "b:1" { // others are left
			t.Error(say(r), err)
		}
		if r, err := w.Remove("a:1", true, users); err != nil || say(r) != "a:1" {
			t.Error(say(r), err)
		}
		if img, err := w.Resolve(a.ID); err != nil || len(img.Names) != 0 || !w.layers.Has(a.Layers[0].DiffID) {
			t.Error("a used image is gone")
		}
		w.unchanged(t, func() {
			_, err := w.Remove(a.ID, true, users)
			wantClass(t, err, fault.Conflict, "conflict: unable to delete "+hex(a)+" (cannot be forced) - image is being used by stopped container cccccccccccc")
		})
		if r, err := w.Remove(a.ID, false, nobody); err != nil || say(r) != "-"+hex(a) {
			t.Error(say(r), err)
		}
		_ = b
	})
	t.Run("of a running container", func(t *testing.T) {
		w, a, b := setup(t)
		w.unchanged(t, func() {
			for _, name := range []string{a.ID, b.ID, hex(b)} {
				for _, force := range []bool{false, true} {
					_, err := w.Remove(name, force, running)
					wantClass(t, err, fault.Conflict, "(cannot be forced) - image is being used by running container dddddddddddd")
				}
			}
		})
		if r, err := w.Remove("a:1", true, running); err != nil || say(r) != "a:1" {
			t.Error(say(r), err)
		}
		// Its names go one by one, the last only by force.
		for _, step := range []struct {
			name  string
			force bool
			fails bool
		}{{"b:1", false, false}, {"b:2", false, false}, {"other/b:3", false, true}, {"other/b:3", true, false}} {
			r, err := w.Remove(step.name, step.force, running)
			if fault.Is(err, fault.Conflict) != step.fails || !step.fails && say(r) != step.name {
				t.Errorf("%+v: %s %v", step, say(r), err)
			}
		}
	})
	t.Run("a stopped container's, by force", func(t *testing.T) {
		w, _, b := setup(t)
		if r, err := w.Remove(b.ID, true, users); err != nil || len(r) != 3 {
			t.Error(say(r), err)
		}
		if img, err := w.Resolve(b.ID); err != nil || len(img.Names) != 0 {
			t.Error("a used image is gone")
		}
	})
	t.Run("by digest", func(t *testing.T) {
		g := &registrytest.Registry{}
		host := serve(t, g)
		g.Push("r", "1", registrytest.Plain(base))
		w := newWorld(t)
		img := w.pull(t, host+"/r:1")
		if r, err := w.Remove(img.Digests[0], false, nobody); err != nil || say(r) != img.Digests[0] {
			t.Error(say(r), err)
		}
		if r, err := w.Remove(host+"/r:1", false, nobody); err != nil || len(r) != 3 {
			t.Error(say(r), err)
		}
		img = w.pull(t, host+"/r@"+img.Manifest)
		w.unchanged(t, func() {
			_, err := w.Remove(img.Digests[0], false, users)
			wantClass(t, err, fault.Conflict, "conflict: unable to remove repository reference")
		})
		if r, err := w.Remove(img.Digests[0], false, nobody); err != nil || len(r) != 3 || len(w.index.all) != 0 {
			t.Error(say(r), err)
		}
	})
	t.Run("by id", func(t *testing.T) {
		w, a, b := setup(t)
		w.unchanged(t, func() {
			_, err := w.Remove(hex(b), false, nobody)
			wantClass(t, err, fault.Conflict, "conflict: unable to delete "+hex(b)+" (must be forced) - image is referenced in multiple repositories")
			_, err = w.Remove(a.ID, false, users)
			wantClass(t, err, fault.Conflict, "conflict: unable to delete "+hex(a)+" (must be forced) - image is being used by stopped container cccccccccccc")
		})
		if r, err := w.Remove(a.ID, false, nobody); err != nil || say(r) != "a:1 -"+hex(a) {
			t.Error(say(r), err)
		}
		if r, err := w.Remove(hex(b), true, nobody); err != nil || len(r) != 6 {
			t.Error(say(r), err)
		}
		if len(w.index.all)+len(w.layers.tars) != 0 {
			t.Errorf("left %s", w.state(t))
		}
	})
	t.Run("digests go with the last tag", func(t *testing.T) {
		g := &registrytest.Registry{}
		host := serve(t, g)
		g.Push("r", "1", registrytest.Plain(base))
		w := newWorld(t)
		img := w.pull(t, host+"/r:1")
		r, err := w.Remove(host+"/r:1", false, nobody)
		if err != nil || len(r) != 4 || r[1].Untagged != Familiar(img.Digests[0]) || len(w.index.all) != 0 {
			t.Error(r, err)
		}
	})
}
