package docker

import (
	"strings"
	"testing"

	"fief/internal/words/ask"
)

func TestCLIPush(t *testing.T) {
	f, socket := serve(t)
	c := needCLI(t, socket)
	out := c.must("push", "busybox")
	wantIn(t, out, "Using default tag: latest", "The push refers to repository [docker.io/library/busybox]", "0123456789ab: Pushed", "latest: digest: sha256:abc size: 7")
	if got := c.must("push", "-q", "busybox:latest"); got != "docker.io/library/busybox:latest" {
		t.Error(got)
	}
	c.must("push", "-a", "busybox")
	c.must("push", "--platform", "linux/arm64/v8", "busybox")
	if _, errs, code := c.run("push", "absent"); code == 0 || !strings.Contains(errs, "An image does not exist locally with the tag: ") {
		t.Error(code, errs)
	}
	want := []ask.PushImage{{Name: "docker.io/library/busybox:latest"}, {Name: "docker.io/library/busybox:latest"},
		{Name: "docker.io/library/busybox", All: true},
		{Name: "docker.io/library/busybox:latest", Platform: "linux/arm64/v8"}, {Name: "docker.io/library/absent:latest"}}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.pushed) != len(want) {
		t.Fatalf("%+v", f.pushed)
	}
	for i := range want {
		if f.pushed[i].Name != want[i].Name || f.pushed[i].All != want[i].All || f.pushed[i].Platform != want[i].Platform {
			t.Errorf("%+v, want %+v", f.pushed[i], want[i])
		}
	}
}
