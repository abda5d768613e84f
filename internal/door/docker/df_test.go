package docker

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"fief/internal/words/record"
)

// Size makes the fake an engine that can measure.
func (f *fake) Size(_ context.Context, id string) (written, shown int64, err error) {
	_, err = f.find(id)
	return 0, 4 << 20, err
}

func TestDiskUsage(t *testing.T) {
	f, socket := serve(t)
	c := raw(socket)
	makeOne(t, socket, `{"Image":"busybox"}`)
	base := f.imgs[0]
	other := base
	other.ID, other.Names = "sha256:"+strings.Repeat("cd", 32), []string{"docker.io/library/other:1"}
	other.Layers = append(slices.Clone(base.Layers), record.Layer{DiffID: "sha256:" + strings.Repeat("99", 32), Size: 7})
	other.Size += 7
	f.mu.Lock()
	f.imgs = append(f.imgs, other)
	f.mu.Unlock()
	_, body := get(t, c, "GET", "/system/df", "")
	var df diskUsage
	if err := json.Unmarshal([]byte(body), &df); err != nil {
		t.Fatal(err)
	}
	if df.LayersSize != base.Size+7 || len(df.Images) != 2 || df.Images[0].SharedSize != base.Size || df.Images[1].SharedSize != base.Size {
		t.Errorf("%s", body)
	}
	if len(df.Containers) != 1 || df.Containers[0].SizeRootFs != 4<<20 {
		t.Errorf("%s", body)
	}
	if _, body = get(t, c, "GET", "/system/df?type=image", ""); !strings.Contains(body, `"Containers":[]`) || !strings.Contains(body, `"SharedSize":4194304`) {
		t.Errorf("%s", body)
	}
	if res, body := get(t, c, "GET", "/system/df?type=image&type=moon", ""); res.StatusCode != 400 || !strings.Contains(body, "unknown object type: moon") {
		t.Errorf("%s", body)
	}
	for query, want := range map[string]string{"": `"SharedSize":-1`, "?shared-size=1": `"SharedSize":4194304`} {
		if _, body := get(t, c, "GET", "/images/json"+query, ""); !strings.Contains(body, want) {
			t.Errorf("%s: no %s in %s", query, want, body)
		}
	}
}
