package docker

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// serveRegistry serves one image, library busybox:latest in one gzip layer, by
// the registry protocol on loopback, and returns its address.
func serveRegistry(t *testing.T, layer []byte) string {
	t.Helper()
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	if _, err := w.Write(layer); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	conf := config(t, layer)
	blob := func(media string, b []byte) map[string]any {
		return map[string]any{"mediaType": media, "digest": digest(b), "size": len(b)}
	}
	const media = "application/vnd.docker.distribution.manifest.v2+json"
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": media,
		"config": blob("application/vnd.docker.container.image.v1+json", conf),
		"layers": []any{blob("application/vnd.docker.image.rootfs.diff.tar.gzip", zipped.Bytes())},
	})
	if err != nil {
		t.Fatal(err)
	}
	blobs := map[string][]byte{digest(conf): conf, digest(zipped.Bytes()): zipped.Bytes(), digest(manifest): manifest}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		b, ok := blobs[name]
		switch {
		case r.URL.Path == "/v2/":
			return
		case strings.HasSuffix(r.URL.Path, "/manifests/latest"), strings.Contains(r.URL.Path, "/manifests/") && name == digest(manifest):
			w.Header().Set("Content-Type", media)
			w.Header().Set("Docker-Content-Digest", digest(manifest))
			b = manifest
		case !ok:
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}
