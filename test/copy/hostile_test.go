package copy

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fief/internal/testenv"
)

// TestOwners: files get the owners that docker gives them, and fief's own command
// gives root's unless it is told to keep them.
func TestOwners(t *testing.T) {
	h := open(t)
	h.local(t, pack(t, sources))
	h.d.Must(t, "run", "-d", "--name", "run", "busybox", "sleep", "1000")
	h.d.Must(t, "run", "-d", "--name", "user", "--user", "app", "busybox", "sleep", "1000")
	for _, c := range []struct {
		client, container, flags, want string
		dst                            string
	}{
		{"fief", "run", "", "0:0 0:0", "/tmp/a"}, {"fief", "run", "-a", "33:33 1000:1000", "/tmp/b"},
		{"docker", "run", "", "33:33 1000:1000", "/tmp/c"}, {"docker", "run", "-a", "33:33 1000:1000", "/tmp/d"},
		{"docker", "user", "-a", "1000:1000 1000:1000", "/tmp/e"}, {"docker", "user", "", "33:33 1000:1000", "/tmp/f"},
	} {
		if !slices.Contains(clients(), c.client) {
			continue
		}
		args := append(append([]string{"cp"}, strings.Fields(c.flags)...), h.dir+"/s/dir", c.container+":"+c.dst)
		if out, errs, code := testenv.Output(t, h.d.Command(t, c.client, args...)); code != 0 {
			t.Errorf("%v: %s%s", args, out, errs)
			continue
		}
		got := h.d.Must(t, "exec", c.container, "stat", "-c", "%u:%g", c.dst+"/one", c.dst+"/sub/two")
		if strings.ReplaceAll(got, "\n", " ") != c.want {
			t.Errorf("%s %v: %q, want %s", c.client, args, got, c.want)
		}
	}
	h.d.Must(t, "exec", "run", "sh", "-c", "chmod 4755 /tmp/b/one; mkfifo /tmp/b/pipe")
	out := exec.Command("tar", "--numeric-owner", "-tvf", "-")
	out.Stdin = strings.NewReader(h.d.Must(t, "cp", "run:/tmp/b", "-"))
	lines, _, _ := testenv.Output(t, out)
	if !strings.Contains(lines, "-rwsr-xr-x 33/33") || !strings.Contains(lines, "1000/1000") {
		t.Error(lines)
	}
	if _, errs, code := h.d.Fief(t, "cp", "-a", "run:/tmp/b", h.dir+"/back"); code != 1 || !strings.Contains(errs, "b/pipe is not copied") {
		t.Errorf("%d %s", code, errs)
	}
	if st, err := os.Stat(h.dir + "/back/one"); err != nil || st.Mode() != 0o755 {
		t.Errorf("%v, %v: a set-id file of a container's came out", st, err)
	}
}

// TestReadOnly: what cannot be written says so, and what can be is.
func TestReadOnly(t *testing.T) {
	h := open(t)
	h.local(t, pack(t, sources))
	volume := t.TempDir()
	wide := t.TempDir()
	if err := os.Chmod(wide, 0o777); err != nil {
		t.Fatal(err)
	}
	h.d.Must(t, "run", "-d", "--name", "ro", "--read-only", "--tmpfs", "/small:size=64k", "-v", volume+":/vol:ro", "busybox", "sleep", "1000")
	h.d.Must(t, "run", "-d", "--name", "rw", "-v", volume+":/host", "-v", wide+":/open", "busybox", "sleep", "1000")
	h.d.Must(t, "create", "--name", "still", "--read-only", "busybox")
	for _, c := range []struct{ src, dst, want string }{
		{"s/file", "ro:/tmp/", "container rootfs is marked read-only"}, {"s/file", "still:/tmp/", "container rootfs is marked read-only"},
		{"s/file", "ro:/vol/", "marked read-only"}, {"s/file", "ro:/small/", ""}, {"s/file", "ro:/proc/", "file of the kernel"},
		{"s/file", "ro:/sys/fs/", "marked read-only"}, {"s/file", "ro:/dev/null", "must be a directory or a regular file"}, {"s/file", "rw:/etc/hosts", "mounted there"},
		{"big", "ro:/small/", "no space left on device"}, {"s/file", "none:/", "No such container: none"},
		{"s/file", "rw:/host/", "somebody whom the container's map does not have"}, {"s/file", "rw:/open/", ""},
	} {
		if err := os.WriteFile(h.dir+"/big", make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		_, errs, code := h.d.Fief(t, "cp", h.dir+"/"+c.src, c.dst)
		if (code != 0) != (c.want != "") || !strings.Contains(errs, c.want) {
			t.Errorf("%s → %s: %d %s, want %q", c.src, c.dst, code, errs, c.want)
		}
	}
	if got := h.d.Must(t, "exec", "ro", "ls", "/small"); got != "file" {
		t.Errorf("%q: half a file was left", got)
	}
	for _, bad := range [][]string{{"ro:/x", "still:/y"}, {"a", "b"}} {
		if _, errs, code := h.d.Fief(t, append([]string{"cp"}, bad...)...); code != 1 || !strings.Contains(errs, "cop") && !strings.Contains(errs, "at least one container") {
			t.Errorf("%v: %d %s", bad, code, errs)
		}
	}
}

// TestRace is CVE-2018-15664 through the doors: a process in the container swaps a
// directory and a link to the host while both clients copy through it.
func TestRace(t *testing.T) {
	h := open(t)
	h.local(t, pack(t, sources))
	canary := filepath.Join(t.TempDir(), "canary")
	if err := os.MkdirAll(canary, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(canary+"/one", []byte("host"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.d.Must(t, "run", "-d", "--name", "evil", "--cap-add", "ALL", "busybox", "sh", "-c", `mkdir /real; echo mine >/real/one; ln -s "$0" /link
		mkfifo /pipe; while :; do mv /real /x; mv /link /real; mv /x /y; mv /real /link; mv /y /real; done`, canary)
	var all sync.WaitGroup
	end := time.Now().Add(4 * time.Second)
	for i, client := range clients() {
		all.Go(func() {
			for n := 0; time.Now().Before(end); n++ {
				into := filepath.Join(h.dir, client)
				if err := os.MkdirAll(into, 0o755); err != nil {
					t.Error(err)
				}
				testenv.Output(t, h.d.Command(t, client, "cp", h.dir+"/s/dir/one", "evil:/real/"))
				testenv.Output(t, h.d.Command(t, client, "cp", h.dir+"/s/dir/.", "evil:/link/"))
				testenv.Output(t, h.d.Command(t, client, "cp", "-L", "evil:/real/one", into))
				testenv.Output(t, h.d.Command(t, client, "cp", "evil:/real/.", into))
				if b, _ := os.ReadFile(into + "/one"); string(b) == "host" {
					t.Error(i, "the canary was copied out")
				}
			}
		})
	}
	all.Wait()
	entries, err := os.ReadDir(canary)
	b, readErr := os.ReadFile(canary + "/one")
	if err != nil || readErr != nil || len(entries) != 1 || string(b) != "host" {
		t.Errorf("the host was written to: %v %q, %v %v", entries, b, err, readErr)
	}
	h.d.Must(t, "cp", "evil:/pipe", "-") // is not opened, or it would wait for ever
}

// TestEnds: a copy neither outlives its client nor keeps a container from being
// stopped and started.
func TestEnds(t *testing.T) {
	h := open(t)
	h.d.Must(t, "run", "-d", "--name", "huge", "busybox", "sh", "-c", "truncate -s 1t /huge; sleep 1000")
	for range 50 {
		if _, _, code := h.d.Fief(t, "exec", "huge", "test", "-s", "/huge"); code == 0 {
			break
		}
	}
	idle, in, err := os.Pipe() // nobody reads: the copy waits
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	cmd := h.d.Command(t, "fief", "cp", "huge:/huge", "-")
	cmd.Stdout = in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	time.Sleep(300 * time.Millisecond)
	h.d.Must(t, "restart", "-t", "0", "huge")
	h.d.Must(t, "stop", "-t", "0", "huge")
	idle.Close()
	if err := cmd.Wait(); err == nil {
		t.Error("a copy cut off counts as whole")
	}
	h.d.Must(t, "rm", "huge")
}
