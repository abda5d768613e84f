package runtimes

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"fief/internal/testenv"
)

// TestNullStaysTheHosts: crun gives the standard streams of a container to its
// user. One that nobody writes to has none of the host's devices for its input.
func TestNullStaysTheHosts(t *testing.T) {
	each(t, func(t *testing.T, d *testenv.Daemon, runtime string) {
		look := func() (st unix.Stat_t) {
			t.Helper()
			if err := unix.Stat(os.DevNull, &st); err != nil {
				t.Fatal(err)
			}
			return st
		}
		before := look()
		t.Cleanup(func() { os.Chown(os.DevNull, int(before.Uid), int(before.Gid)) })
		same := func(after string) {
			t.Helper()
			if now := look(); now.Uid != before.Uid || now.Gid != before.Gid || now.Mode != before.Mode {
				t.Errorf("after %s the host's /dev/null is %d:%d %#o, it was %d:%d %#o", after, now.Uid, now.Gid, now.Mode, before.Uid, before.Gid, before.Mode)
			}
		}
		if out := d.Must(t, "run", "--rm", "--runtime", runtime, "--user", "65534:65534", "busybox", "cat"); out != "" {
			t.Errorf("without input there is %q to read", out)
		}
		same("a run")
		d.Must(t, "run", "-d", "--name", "quiet", "--runtime", runtime, "--user", "65534:65534", "busybox", "sleep", "1000")
		same("a run in the background")
		if out := d.Must(t, "exec", "--user", "1:1", "quiet", "cat"); out != "" {
			t.Errorf("a session without input has %q to read", out)
		}
		same("a session")
		d.Must(t, "rm", "-f", "quiet")
	})
}
