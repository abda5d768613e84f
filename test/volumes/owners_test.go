package volumes_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fief/internal/testenv"
)

// many is a directory with more files than owners are changed in a moment.
func many(t *testing.T, files int) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "fief-many-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for i := range files {
		if i%1000 == 0 {
			if err := os.Mkdir(fmt.Sprintf("%s/%d", dir, i/1000), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(fmt.Sprintf("%s/%d/%d", dir, i/1000, i), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// others counts the files below dir, and those that are not root's.
func others(t *testing.T, dir string) (all, given int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Sys().(*syscall.Stat_t).Uid != 0 {
			given++
		}
		all++
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all, given
}

// Ctrl-C while U changes owners ends it with a word of what was changed; the container
// is there, and its start goes on.
func TestOwnersInterrupted(t *testing.T) {
	testenv.NeedRoot(t)
	d := testenv.Start(t)
	d.Busybox(t)
	dir := many(t, 100_000)
	cmd := d.Command(t, "fief", "run", "--name", "owner", "-v", dir+":/d:U", "busybox", "true")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	changed := func() bool {
		dirs, _ := filepath.Glob(dir + "/*/*0")
		for _, path := range dirs {
			var st syscall.Stat_t
			if syscall.Lstat(path, &st) == nil && st.Uid != 0 {
				return true
			}
		}
		return false
	}
	for end := time.Now().Add(2 * time.Minute); !changed(); {
		if time.Now().After(end) {
			t.Fatal("no owner changes")
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	all, given := others(t, dir)
	if given == all && err == nil {
		t.Skip("kernel: it was faster than the signal")
	}
	want := fmt.Sprintf("cannot change the owners of %s: interrupted: ", dir)
	if err == nil || cmd.ProcessState.ExitCode() != 125 || !strings.Contains(said.String(), want) || !strings.Contains(said.String(), "the next start goes on") || given == 0 {
		t.Errorf("%v, %d of %d are changed:\n%s", err, given, all, said.String())
	}
	if got := d.Must(t, "ps", "-a", "--format", "{{.Names}} {{.Status}}"); got != "owner Created" {
		t.Errorf("the container: %s", got)
	}
	d.Must(t, "start", "-a", "owner")
	if all, given := others(t, dir); given != all {
		t.Errorf("then %d of %d are changed", given, all)
	}
	d.Must(t, "rm", "owner")
}
