package engine

import (
	"bytes"
	"context"
	"testing"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

func TestCommitExportChanges(t *testing.T) {
	r := newRooms()
	r.images["img"] = record.Image{ID: "sha256:base", Config: record.ImageConfig{Cmd: []string{"true"}}}
	r.images["sha256:base"] = r.images["img"]
	r.images["host"] = record.Image{Host: true, Config: record.ImageConfig{Cmd: []string{"true"}}}
	e := r.engine(t)
	ctx := context.Background()
	if _, err := e.Create(ctx, ask.Container{Name: "box", Userns: ask.UsernsHost{}, Network: ask.NetNone, Image: "img", User: "33"}); err != nil {
		t.Fatal(err)
	}
	img, err := e.Commit(ctx, ask.Commit{Container: "box"})
	if err != nil || img.ID != "sha256:committed" || img.Config.User != "33" {
		t.Errorf("%+v %v", img, err)
	}
	list, err := e.Changes(ctx, "box")
	if err != nil || len(list) != 1 || list[0].Kind.String() != "A" {
		t.Error(list, err)
	}
	var out bytes.Buffer
	if err := e.Export(ctx, "box", &out); err != nil || out.String() != "upper" {
		t.Error(out.String(), err)
	}
	c, _ := e.table.find("box")
	c.mu.Lock()
	c.gone = true // removed while it is read
	c.mu.Unlock()
	_, commit := e.Commit(ctx, ask.Commit{Container: "box"})
	_, changes := e.Changes(ctx, "box")
	for _, err := range []error{commit, changes, e.Export(ctx, "box", &out)} {
		if !fault.Is(err, fault.Conflict) {
			t.Error(err)
		}
	}
	if _, err := e.Commit(ctx, ask.Commit{Container: "none"}); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if _, err := e.Create(ctx, ask.Container{Name: "built", Userns: ask.UsernsHost{}, Network: ask.NetNone, Image: "host"}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Commit(ctx, ask.Commit{Container: "built"}); !fault.Is(err, fault.Unsupported) || fault.HintOf(err) == "" {
		t.Error(err)
	}
}
