package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"fief/internal/image/registrytest"
	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// writing writes a tar as a container's layer.
func writing(raw []byte, entries int64) func(io.Writer) (int64, error) {
	return func(to io.Writer) (int64, error) {
		_, err := to.Write(raw)
		return entries, err
	}
}

func committed(t *testing.T, w *world, c Commit, raw []byte) record.Image {
	t.Helper()
	img, err := w.Commit(context.Background(), c, writing(raw, 1))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func based(t *testing.T) (*world, record.Image) {
	w := newWorld(t)
	plain := registrytest.Plain(registrytest.Layer("a", "1"), registrytest.Layer("b", "2"))
	return w, w.load(t, plain.DockerArchive("base:1"))[0]
}

func TestCommit(t *testing.T) {
	w, base := based(t)
	raw := registrytest.Layer("c", "3")
	img := committed(t, w, Commit{
		Ask:  ask.Commit{Name: "made", Author: "Ann <a@b>", Message: "why", Changes: []string{"ENV X=2 Y=3", `CMD ["new"]`, "LABEL l=own"}},
		Base: base, CreatedBy: "sh -c true",
		Container: ask.CommitConfig{User: "33", Env: []string{"X=1", "Z=4"}, Entrypoint: []string{"/e"}, Cmd: []string{"old"}, Labels: map[string]string{"l": "c", "m": "c"}},
	}, raw)
	if got := strings.Join(img.Names, " "); got != "docker.io/library/made:latest" || img.Author != "Ann <a@b>" || img.Comment != "why" {
		t.Errorf("%+v", img)
	}
	if len(img.Layers) != 3 || img.Layers[0].DiffID != base.Layers[0].DiffID || !bytes.Equal(w.layers.tars[img.Layers[2].DiffID], raw) {
		t.Errorf("layers %+v", img.Layers)
	}
	for id, n := range w.layers.unpacked {
		if n != 1 {
			t.Errorf("layer %s was unpacked %d times", id, n)
		}
	}
	c := img.Config
	if c.User != "33" || strings.Join(c.Env, " ") != "X=2 Y=3 Z=4" || c.Entrypoint[0] != "/e" || c.Cmd[0] != "new" || c.Labels["l"] != "own" || c.Labels["m"] != "c" {
		t.Errorf("config %+v", c)
	}
	last := img.History[len(img.History)-1]
	if len(img.History) != len(base.History)+1 || last.CreatedBy != "sh -c true" || last.Author != "Ann <a@b>" || last.Comment != "why" || last.EmptyLayer {
		t.Errorf("history %+v", img.History)
	}
	w.reopen(t)
	if again, err := w.Resolve("made"); err != nil || again.ID != img.ID {
		t.Error(again, err)
	}
	second := committed(t, w, Commit{Ask: ask.Commit{Name: "made:2"}, Base: img}, registrytest.Layer("d", "4"))
	if len(second.Layers) != 4 || second.Config.User != "" {
		t.Errorf("%+v", second)
	}
}

// An entrypoint that was asked for drops the container's command.
func TestCommitEntrypoint(t *testing.T) {
	w, base := based(t)
	img := committed(t, w, Commit{Ask: ask.Commit{Changes: []string{`ENTRYPOINT ["/new"]`}}, Base: base,
		Container: ask.CommitConfig{Entrypoint: []string{"/e"}, Cmd: []string{"old"}}}, registrytest.Layer("c", "3"))
	if len(img.Names) != 0 || img.Config.Entrypoint[0] != "/new" || len(img.Config.Cmd) != 0 {
		t.Errorf("%+v", img)
	}
}

// A container that wrote nothing gets no layer of its own.
func TestCommitNothing(t *testing.T) {
	w, base := based(t)
	img, err := w.Commit(context.Background(), Commit{Base: base}, writing(registrytest.Layer(), 0))
	if err != nil || len(img.Layers) != 2 || !img.History[len(img.History)-1].EmptyLayer || img.ID == base.ID {
		t.Errorf("%+v %v", img, err)
	}
}

// What the base's config says that fief does not know stays.
func TestCommitKeepsTheRest(t *testing.T) {
	b := base{raw: []byte(`{"id":"x","container":"y","os.features":["z"],"config":{"Healthcheck":{"Test":["CMD","t"]},"OnBuild":["RUN x"],"User":"1","Cmd":["c"]}}`)}
	raw, err := b.write(configFile{OS: "linux", Config: configRun{User: "2"}})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		ID, Container string
		Features      []string `json:"os.features"`
		Config        struct {
			Healthcheck  any
			OnBuild, Cmd []string
			User         string
		}
	}
	if err := json.Unmarshal(raw, &got); err != nil || got.ID+got.Container != "" || len(got.Features) != 1 || got.Config.Healthcheck == nil ||
		len(got.Config.OnBuild) != 1 || got.Config.User != "2" || got.Config.Cmd != nil {
		t.Errorf("%s %v", raw, err)
	}
}

// TestCommitChanges: every instruction that Docker and Podman take, in a config
// whose base has others.
func TestCommitChanges(t *testing.T) {
	for _, c := range []struct{ changes, key, want string }{
		{`CMD ["a","b c"]`, "Cmd", `["a","b c"]`}, {`CMD a b`, "Cmd", `["/bin/sh","-c","a b"]`}, {`CMD=a`, "Cmd", `["/bin/sh","-c","a"]`},
		{`entrypoint ["/e"]`, "Entrypoint", `["/e"]`}, {`ENV A=1 B="2 3"`, "Env", `["A=1","B=2 3"]`}, {`ENV A 1 2`, "Env", `["A=1 2"]`},
		{`EXPOSE 80 53/udp`, "ExposedPorts", `{"53/udp":{},"80/tcp":{}}`}, {`LABEL a=b c="d e"`, "Labels", `{"a":"b","c":"d e"}`},
		{`USER 33:44`, "User", `"33:44"`}, {`VOLUME /a /b`, "Volumes", `{"/a":{},"/b":{}}`}, {`VOLUME ["/a b"]`, "Volumes", `{"/a b":{}}`},
		{`WORKDIR /srv`, "WorkingDir", `"/srv"`}, {"WORKDIR /srv\nWORKDIR www/../x", "WorkingDir", `"/srv/x"`}, {`STOPSIGNAL SIGQUIT`, "StopSignal", `"SIGQUIT"`},
		{`SHELL ["/bin/ash"]`, "Shell", `["/bin/ash"]`}, {"ONBUILD RUN a\nONBUILD COPY b /", "OnBuild", `["RUN a","COPY b /"]`},
		{`HEALTHCHECK NONE`, "Healthcheck", `{"Test":["NONE"]}`}, {`HEALTHCHECK CMD ["t","x"]`, "Healthcheck", `{"Test":["CMD","t","x"]}`},
		{`HEALTHCHECK --interval=5m --timeout=3s --start-period=1s --start-interval=2s --retries=4 CMD t || exit 1`, "Healthcheck",
			`{"Test":["CMD-SHELL","t || exit 1"],"Interval":300000000000,"Timeout":3000000000,"StartPeriod":1000000000,"StartInterval":2000000000,"Retries":4}`},
		{`RUN x`, "", ""}, {`ONBUILD FROM x`, "", ""}, {`ONBUILD ONBUILD RUN x`, "", ""}, {`HEALTHCHECK x`, "", ""}, {`HEALTHCHECK CMD`, "", ""},
		{`HEALTHCHECK --interval=1 CMD x`, "", ""}, {`HEALTHCHECK --every=1s CMD x`, "", ""}, {`HEALTHCHECK --retries=-1 CMD x`, "", ""}, {`CMD`, "", ""},
		{`SHELL sh`, "", ""},
	} {
		var run configRun
		var err error
		for line := range strings.SplitSeq(c.changes, "\n") {
			err = errors.Join(err, run.apply(line))
		}
		if c.key == "" {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%s: %v", c.changes, err)
			}
			continue
		}
		raw, werr := base{raw: []byte(`{"config":{"Healthcheck":{"Test":["CMD","old"]},"OnBuild":["RUN old"]}}`)}.write(configFile{Config: run})
		var got struct{ Config map[string]json.RawMessage }
		if err := errors.Join(err, werr, json.Unmarshal(raw, &got)); err != nil || string(got.Config[c.key]) != c.want {
			t.Errorf("%s: %s %v\nwant %s", c.changes, got.Config[c.key], err, c.want)
		}
	}
}

func TestCommitRefused(t *testing.T) {
	w, base := based(t)
	raw := registrytest.Layer("c", "3")
	told := fault.New(fault.Conflict, "read", "f", "its owner is nobody", "")
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	cases := map[string]struct {
		ctx   context.Context
		c     Commit
		write func(io.Writer) (int64, error)
		class fault.Class
	}{
		"bad name":   {c: Commit{Ask: ask.Commit{Name: "UPPER"}, Base: base}, class: fault.Invalid},
		"digest":     {c: Commit{Ask: ask.Commit{Name: "a@sha256:" + strings.Repeat("1", 64)}, Base: base}, class: fault.Invalid},
		"bad change": {c: Commit{Ask: ask.Commit{Changes: []string{"RUN x"}}, Base: base}, class: fault.Invalid},
		"no base":    {c: Commit{Base: record.Image{ID: "sha256:none"}}, class: fault.NotFound},
		"reader fails": {c: Commit{Base: base}, class: fault.Conflict, write: func(to io.Writer) (int64, error) {
			to.Write(raw)
			return 1, told
		}},
		"canceled": {ctx: canceled, c: Commit{Base: base}, class: fault.Canceled},
		"no tar":   {c: Commit{Base: base}, class: fault.Corrupt, write: writing([]byte("x"), 1)},
	}
	w.layers.fail = func(id string) error {
		if len(w.layers.tars[id]) == 0 && id == sumOfText("x") {
			return fault.New(fault.Corrupt, "unpack", "layer", "no tar", "")
		}
		return nil
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if c.ctx == nil {
				c.ctx = context.Background()
			}
			if c.write == nil {
				c.write = writing(raw, 1)
			}
			w.unchanged(t, func() {
				if _, err := w.Commit(c.ctx, c.c, c.write); !fault.Is(err, c.class) {
					t.Error(err)
				}
			})
		})
	}
	t.Run("index fails", func(t *testing.T) {
		w.index.fail = func(changes map[string]any) error {
			for k := range changes {
				if strings.HasPrefix(k, imageKey) {
					return errors.New("no")
				}
			}
			return nil
		}
		w.unchanged(t, func() {
			if _, err := w.Commit(context.Background(), Commit{Base: base}, writing(raw, 1)); err == nil {
				t.Error("no error")
			}
		})
	})
}

func sumOfText(s string) string { return digestOf([]byte(s)) }

// TestCommitFullDisk: a blob that finds no space ends the commit, and whoever
// writes the layer is not left waiting.
func TestCommitFullDisk(t *testing.T) {
	dir := mnttest.SmallFS(t, "2m")
	w, base := func() (*world, record.Image) {
		w := &world{dir: filepath.Join(dir, "store"), index: &memIndex{all: map[string][]byte{}},
			layers: &memLayers{tars: map[string][]byte{}, unpacked: map[string]int{}}}
		if err := os.Mkdir(w.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		w.reopen(t)
		t.Cleanup(func() { w.Close() })
		return w, w.load(t, registrytest.Plain(registrytest.Layer("a", "1")).DockerArchive("base:1"))[0]
	}()
	noise := make([]byte, 1<<20)
	for i := range noise {
		noise[i] = byte(i*i>>7) ^ byte(i*2654435761>>13)
	}
	w.unchanged(t, func() {
		_, err := w.Commit(context.Background(), Commit{Base: base}, func(to io.Writer) (int64, error) {
			for i := 0; ; i++ {
				noise = slices.Insert(noise[1:], 0, byte(i)) // never the same block twice
				if _, err := to.Write(noise); err != nil {
					return 1, err
				}
				if i > 4096 {
					return 1, errors.New("the disk is too large for this test")
				}
			}
		})
		if !fault.Is(err, fault.Exhausted) {
			t.Error(err)
		}
	})
}
