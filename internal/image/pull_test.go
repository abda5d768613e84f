package image

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	"fief/internal/image/registrytest"
	"fief/internal/words/ask"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestPullEveryKind(t *testing.T) {
	one, two, three := registrytest.Layer("a", "1"), registrytest.Layer("b", "2"), registrytest.Layer("c", strings.Repeat("3", 300000))
	mixed := registrytest.Image{
		Tars:       [][]byte{one, two, three},
		Blobs:      [][]byte{one, registrytest.Gzip(two), registrytest.Zstd(three)},
		MediaTypes: []string{ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd},
	}
	docker := registrytest.Gzipped(one, two)
	docker.Docker = true
	docker.Config = map[string]any{"Cmd": []string{"sh"}, "Entrypoint": "one string", "Env": []string{"A=b"}, "User": "u", "WorkingDir": "/w",
		"Labels": map[string]string{"l": "v"}, "Volumes": map[string]any{"/v": map[string]any{}}, "ExposedPorts": map[string]any{"80/tcp": map[string]any{}}, "StopSignal": "TERM"}
	arm := registrytest.Gzipped(three)
	arm.Architecture, arm.Variant = "arm64", "v8"
	g := &registrytest.Registry{}
	host := serve(t, g)
	g.Push("mixed", "1", mixed)
	g.Push("docker", "latest", docker)
	index := g.PushIndex("multi", "latest", ocispec.MediaTypeImageIndex,
		ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("x"), Size: 1, Platform: &ocispec.Platform{OS: "unknown", Architecture: "unknown"}},
		g.Push("multi", "", arm), g.Push("multi", "", mixed))
	g.PushIndex("dockermulti", "latest", registrytest.DockerList, g.Push("dockermulti", "", docker), g.Push("dockermulti", "", arm))
	g.Push("empty", "latest", registrytest.Image{})
	w := newWorld(t)

	img := w.pull(t, host+"/mixed:1")
	if len(img.Layers) != 3 || img.Layers[1].DiffID != digest.FromBytes(two).String() || img.Layers[1].MaxUID != 7 || img.Size != int64(len(one)+len(two)+len(three)) {
		t.Errorf("%+v", img)
	}
	if img.OS != "linux" || img.Arch != "amd64" || img.Created.Nanosecond() != 123456789 || len(img.History) != 1 {
		t.Errorf("%+v", img)
	}
	img = w.pull(t, host+"/docker")
	c := img.Config
	if !slices.Equal(c.Entrypoint, []string{"one string"}) || c.Cmd[0] != "sh" || c.Labels["l"] != "v" || c.Volumes[0] != "/v" || c.ExposedPorts[0] != "80/tcp" || c.WorkDir != "/w" {
		t.Errorf("%+v", c)
	}
	if img = w.pull(t, host+"/multi"); img.Arch != "amd64" || img.Digests[1] != host+"/multi@"+index.String() {
		t.Errorf("%+v", img)
	}
	img, err := w.Pull(context.Background(), ask.PullImage{Name: host + "/dockermulti", Platform: "linux/arm64"}, nil)
	if err != nil || img.Arch != "arm64" {
		t.Errorf("%+v %v", img, err)
	}
	if img = w.pull(t, host+"/multi@"+index.String()); img.Arch != "amd64" {
		t.Errorf("%+v", img)
	}
	if img = w.pull(t, host+"/empty"); len(img.Layers) != 0 {
		t.Errorf("%+v", img)
	}
	for diffID, n := range w.layers.unpacked {
		if n != 1 {
			t.Errorf("%s was unpacked %d times", diffID, n)
		}
	}
	if !bytes.Equal(w.layers.tars[digest.FromBytes(three).String()], three) {
		t.Error("layer content")
	}
	before := w.state(t)
	w.reopen(t)
	if after := w.state(t); before != after || len(w.List()) != 4 {
		t.Errorf("a restart changed\n%s\ninto\n%s", before, after)
	}
	_, err = w.Pull(context.Background(), ask.PullImage{Name: host + "/multi", Platform: "linux/s390x"}, nil)
	if err == nil || !strings.Contains(err.Error(), "no matching manifest for linux/s390x in the manifest list entries") {
		t.Errorf("got %v", err)
	}
	_, err = w.Pull(context.Background(), ask.PullImage{Name: host + "/docker", Platform: "linux/s390x"}, nil)
	if err == nil || !strings.Contains(err.Error(), "does not match the specified platform: wanted linux/s390x, actual: linux/amd64") {
		t.Errorf("got %v", err)
	}
}

func TestPullProgress(t *testing.T) {
	one, two := registrytest.Gzipped(registrytest.Layer("a", "1")), registrytest.Gzipped(registrytest.Layer("a", "1"), registrytest.Layer("b", "2"))
	g := &registrytest.Registry{}
	host := serve(t, g)
	g.Push("lib/one", "v1", one)
	desc := g.Push("lib/one", "v2", two)
	w := newWorld(t)
	w.pull(t, host+"/lib/one:v1")
	shared, own := digest.FromBytes(two.Blobs[0]).Encoded()[:12], digest.FromBytes(two.Blobs[1]).Encoded()[:12]
	if got := w.words(shared); got != "Pulling fs layer, Downloading, Verifying Checksum, Download complete, Extracting, Pull complete" {
		t.Error(got)
	}
	w.told = nil
	w.pull(t, host+"/lib/one:v2")
	if got := w.words(shared); got != "Already exists" {
		t.Error(got)
	}
	if got := w.words(own); got != "Pulling fs layer, Downloading, Verifying Checksum, Download complete, Extracting, Pull complete" {
		t.Error(got)
	}
	if p := w.told[0]; p.ID != "v2" || p.Status != "Pulling from lib/one" {
		t.Errorf("%+v", p)
	}
	if got := w.words(""); got != "Digest: "+desc.Digest.String()+", Status: Downloaded newer image for "+host+"/lib/one:v2" {
		t.Error(got)
	}
	for _, p := range w.told {
		if p.Status == "Downloading" && (p.Current == 0 || p.Total != int64(len(two.Blobs[1]))) {
			t.Errorf("%+v", p)
		}
	}
	w.told = nil
	w.pull(t, host+"/lib/one:v2")
	if got := w.words(""); !strings.HasSuffix(got, "Status: Image is up to date for "+host+"/lib/one:v2") {
		t.Error(got)
	}
}

// words joins what was told about a bar, repeated sentences once.
func (w *world) words(id string) string {
	var all []string
	for _, p := range w.told {
		if p.ID == id {
			all = append(all, p.Status)
		}
	}
	return strings.Join(slices.Compact(all), ", ")
}

var _ = http.StatusOK
