package docker

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// Commit gives back what was asked, as the image's id.
func (f *fake) Commit(ctx context.Context, a ask.Commit) (record.Image, error) {
	if _, err := f.Inspect(ctx, a.Container); err != nil {
		return record.Image{}, err
	}
	raw, err := json.Marshal(a)
	return record.Image{ID: string(raw)}, err
}

func (f *fake) Export(ctx context.Context, name string, to io.Writer) error {
	if _, err := f.Inspect(ctx, name); err != nil {
		return err
	}
	io.WriteString(to, "half a tar")
	return fault.New(fault.Conflict, "read", "f", "the rest is missing", "")
}

func (f *fake) Changes(ctx context.Context, name string) ([]record.Change, error) {
	_, err := f.Inspect(ctx, name)
	return []record.Change{{Kind: record.Modified, Path: "/a"}, {Kind: record.Added, Path: "/a/b"}, {Kind: record.Deleted, Path: "/c"}}, err
}

func TestCommitDoor(t *testing.T) {
	f, socket := serve(t)
	c := raw(socket)
	list, err := f.List(context.Background())
	if err != nil || len(list) == 0 {
		made, err := f.Create(context.Background(), ask.Container{Name: "box", Image: "busybox"})
		if err != nil {
			t.Fatal(err)
		}
		list = []record.Container{{ID: made.ID}}
	}
	id := list[0].ID
	res, body := get(t, c, "POST", "/commit?container="+id+"&repo=busybox&tag=new&author=a&comment=m&pause=0&changes=CMD+x%0AENV+A%3Db&changes=USER+y",
		`{"User":"7","Cmd":"one","ExposedPorts":{"80/tcp":{}},"Volumes":{"/v":{}}}`)
	var said struct{ Id string }
	var got ask.Commit
	if err := errors.Join(json.Unmarshal([]byte(body), &said), json.Unmarshal([]byte(said.Id), &got)); err != nil || res.StatusCode != 201 {
		t.Fatal(res.StatusCode, body, err)
	}
	if got.Name != "docker.io/library/busybox:new" || got.Author != "a" || got.Message != "m" || !got.NoPause ||
		!slices.Equal(got.Changes, []string{"CMD x", "ENV A=b", "USER y"}) || got.Config.User != "7" || got.Config.Cmd[0] != "one" ||
		!slices.Equal(got.Config.ExposedPorts, []string{"80/tcp"}) || !slices.Equal(got.Config.Volumes, []string{"/v"}) {
		t.Errorf("%+v", got)
	}
	if _, body = get(t, c, "POST", "/commit?container="+id, ""); json.Unmarshal([]byte(body), &said) != nil || json.Unmarshal([]byte(said.Id), &got) != nil {
		t.Error(body)
	}
	for call, want := range map[string]int{
		"POST /commit?container=none": 404, "POST /commit?container=" + id + "&repo=UPPER": 400, "POST /commit?container=" + id + "&repo=a&tag=sha256:0": 400,
		"GET /containers/none/export": 404, "GET /containers/none/changes": 404, "GET /containers/" + id + "/changes": 200,
	} {
		method, path, _ := strings.Cut(call, " ")
		if res, body := get(t, c, method, path, ""); res.StatusCode != want {
			t.Errorf("%s: %d %s", call, res.StatusCode, body)
		}
	}
	if _, body := get(t, c, "GET", "/containers/"+id+"/changes", ""); body != `[{"Kind":0,"Path":"/a"},{"Kind":1,"Path":"/a/b"},{"Kind":2,"Path":"/c"}]` {
		t.Error(body)
	}
	broken, err := c.Get("http://api.moby.localhost/containers/" + id + "/export") // does not end well
	if err == nil {
		_, err = io.ReadAll(broken.Body)
		broken.Body.Close()
	}
	if err == nil {
		t.Error("the client took half an archive for one")
	}
}
