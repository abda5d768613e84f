// Package shift tests the ways of shifting through the daemon.
package shift

import (
	"strings"
	"testing"

	"fief/internal/testenv"
)

const (
	write = `echo mine >/root/file && chown 33:50 /root/file /etc/passwd && stat -c %u:%g /bin/busybox`
	read  = `stat -c %u:%g /root/file /etc/passwd && cat /root/file`
)

// TestAskedWays: containers of different ways live side by side, keep theirs
// over a restart of the daemon, and only those whose files have inside ids get
// another map.
func TestAskedWays(t *testing.T) {
	d := testenv.Start(t)
	d.Busybox(t)
	for _, way := range []string{"idmapped", "attached", "metacopy", "reflink", "copy"} {
		t.Run(way, func(t *testing.T) {
			out, errs, code := d.Fief(t, "run", "--name", way, "--network", "none", "--storage-opt", "shift="+way, "busybox", "sh", "-c",
				"test -e /root/file || { "+write+"; }; "+read)
			if code != 0 && way == "reflink" && strings.Contains(errs, "share") {
				return // ext4 and tmpfs say so: it is refused, and nothing else taken
			}
			if code != 0 || !strings.HasSuffix(out, "33:50\n33:50\nmine\n") {
				t.Fatalf("%d %q %s", code, out, errs)
			}
			check(t, d, way)
			d.Stop(t)
			d.Up(t)
			check(t, d, way)
			_, errs, code = d.Fief(t, "update", "--userns", "auto", way)
			if keeps := way != "idmapped" && way != "attached"; (code != 0) != keeps {
				t.Errorf("another map: %d %s", code, errs)
			}
			check(t, d, way)
		})
	}
	if _, errs, code := d.Fief(t, "run", "--storage-opt", "shift=chown", "busybox", "true"); code == 0 || !strings.Contains(errs, "no such way") {
		t.Errorf("%d %s", code, errs)
	}
}

func check(t *testing.T, d *testenv.Daemon, way string) {
	t.Helper()
	if got := d.Must(t, "start", "-a", way); got != "33:50\n33:50\nmine\n" && got != "33:50\n33:50\nmine" {
		t.Errorf("started again: %q", got)
	}
	if got := d.Must(t, "inspect", "--format", "{{json .GraphDriver.Data}}", way); !strings.Contains(got, `"Shift":"`+way+`"`) {
		t.Errorf("inspect says %s", got)
	}
}
