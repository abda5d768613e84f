// Package badinput gives the whole engine, through its command line, what it
// must refuse: each a clear error, with the state as it was before.
package badinput

import (
	"archive/tar"
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"fief/internal/image/registrytest"
	"fief/internal/testenv"
)

// state is what must not change: images, layers, blobs, and a canary outside.
func state(t *testing.T, d *testenv.Daemon) string {
	t.Helper()
	out := d.Must(t, "images", "--no-trunc", "-a") + "\n" + d.Must(t, "ps", "-aq")
	for _, dir := range []string{"layers", "building", "blobs/sha256", "ingest"} {
		entries, err := os.ReadDir(filepath.Join(d.Dir, "data", dir))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, e := range entries {
			out += "\n" + dir + "/" + e.Name()
		}
	}
	return out
}

type entry struct {
	h    tar.Header
	body string
}

func archive(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		e.h.Size, e.h.Mode = int64(len(e.body)), 0o644
		if err := w.WriteHeader(&e.h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func reg(name, body string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg}, body}
}

func link(kind byte, name, target string) entry {
	return entry{tar.Header{Name: name, Typeflag: kind, Linkname: target}, ""}
}

func TestRootFilesystems(t *testing.T) {
	d := testenv.Start(t)
	canary := filepath.Join(d.Dir, "canary")
	if err := os.Mkdir(canary, 0o755); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 30)[:3*30-1]
	whole := testenv.BusyboxTar(t)
	for name, c := range map[string]struct {
		tar  []byte
		want string
	}{
		"dot dot":          {archive(t, reg("../evil", "x")), `"../evil"`},
		"dot dot inside":   {archive(t, reg("a/../../evil", "x")), "evil"},
		"symlink up":       {archive(t, link(tar.TypeSymlink, "s", up+canary), reg("s/evil", "x")), `"s": entries lie below it`},
		"symlink absolute": {archive(t, link(tar.TypeSymlink, "s", canary), reg("s/evil", "x")), `"s": entries lie below it`},
		"hard link up":     {archive(t, link(tar.TypeLink, "h", up+canary+"/file")), `the name holds ".."`},
		"block device":     {archive(t, entry{tar.Header{Name: "srv/disk", Typeflag: tar.TypeBlock, Devmajor: 8}, ""}), "device nodes are not unpacked"},
		"no tar":           {[]byte(strings.Repeat("this is no archive ", 100)), ""},
		"truncated":        {whole[:len(whole)/2], ""},
		"empty":            {nil, "the input is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			before := state(t, d)
			cmd := d.Command(t, "fief", "import", "-", "evil")
			cmd.Stdin = bytes.NewReader(c.tar)
			out, errs, code := testenv.Output(t, cmd)
			if code == 0 || !strings.Contains(errs, c.want) || len(strings.TrimSpace(errs)) < 10 {
				t.Errorf("exit %d, %s%s; want an error with %q", code, out, errs, c.want)
			}
			if after := state(t, d); after != before {
				t.Errorf("state was\n%s\nis\n%s", before, after)
			}
		})
	}
	if left, _ := os.ReadDir(canary); len(left) > 0 {
		t.Errorf("something was written outside: %v", left)
	}
}

func TestArchives(t *testing.T) {
	d := testenv.Start(t)
	img := registrytest.Gzipped(registrytest.Layer("file", "content"))
	docker, oci := img.DockerArchive("whole:1"), img.OCIArchive("whole:2")
	for name, c := range map[string][]byte{
		"docker archive, cut off":   docker[:len(docker)*2/3],
		"oci archive, cut off":      oci[:len(oci)*2/3],
		"docker archive, a bit off": flip(docker, "content"),
		"no archive":                []byte("no archive at all, but long enough to be looked at by every format"),
	} {
		t.Run(name, func(t *testing.T) {
			before := state(t, d)
			cmd := d.Command(t, "fief", "load")
			cmd.Stdin = bytes.NewReader(c)
			if out, errs, code := testenv.Output(t, cmd); code == 0 || errs == "" {
				t.Errorf("exit %d, %s%s", code, out, errs)
			}
			if after := state(t, d); after != before {
				t.Errorf("state was\n%s\nis\n%s", before, after)
			}
		})
	}
	cmd := d.Command(t, "fief", "load")
	cmd.Stdin = bytes.NewReader(docker)
	if out, errs, code := testenv.Output(t, cmd); code != 0 || !strings.Contains(out, "whole:1") {
		t.Errorf("the whole archive: exit %d, %s%s", code, out, errs)
	}
}

// flip changes a byte of the first occurrence of a text.
func flip(b []byte, text string) []byte {
	out := slices.Clone(b)
	if i := bytes.Index(out, []byte(text)); i >= 0 {
		out[i] ^= 1
		return out
	}
	out[len(out)/2] ^= 1 // compressed: any byte of the layer
	return out
}

func TestRegistries(t *testing.T) {
	d := testenv.Start(t)
	var tamper func(w http.ResponseWriter, r *http.Request, body []byte) bool
	g := &registrytest.Registry{Tamper: func(w http.ResponseWriter, r *http.Request, body []byte) bool {
		return tamper != nil && strings.Contains(r.URL.Path, "/blobs/") && tamper(w, r, body)
	}}
	g.Push("app", "latest", registrytest.Gzipped(registrytest.Layer("file", strings.Repeat("content", 1000))))
	s := httptest.NewServer(g)
	t.Cleanup(s.Close)
	name := strings.TrimPrefix(s.URL, "http://") + "/app"
	for what, fault := range map[string]func(w http.ResponseWriter, r *http.Request, body []byte) bool{
		"wrong digest": func(w http.ResponseWriter, _ *http.Request, body []byte) bool {
			w.Write(flip(body, "no such text"))
			return true
		},
		"cut off": func(w http.ResponseWriter, _ *http.Request, body []byte) bool {
			w.Write(body[:len(body)/2])
			return true
		},
		"too long": func(w http.ResponseWriter, _ *http.Request, body []byte) bool {
			w.Write(append(slices.Clone(body), "more"...))
			return true
		},
		"not there": func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
			http.NotFound(w, r)
			return true
		},
	} {
		t.Run(what, func(t *testing.T) {
			before := state(t, d)
			tamper = fault
			_, errs, code := d.Fief(t, "pull", name)
			tamper = nil
			if code == 0 || errs == "" {
				t.Errorf("exit %d, %s", code, errs)
			}
			if after := state(t, d); after != before {
				t.Errorf("state was\n%s\nis\n%s", before, after)
			}
		})
	}
	if _, errs, code := d.Fief(t, "pull", name+":no-such-tag"); code == 0 || !strings.Contains(errs, "no-such-tag") {
		t.Errorf("unknown tag: exit %d, %s", code, errs)
	}
	d.Must(t, "pull", name)
}
