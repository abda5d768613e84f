package hostids

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newHost makes a host of its own in a temporary directory: account files, an
// empty process list, no other engine, no name service and no programs.
func newHost(t testing.TB) Files {
	t.Helper()
	dir := t.TempDir()
	f := Files{
		SubUID: filepath.Join(dir, "subuid"), SubGID: filepath.Join(dir, "subgid"),
		Passwd: filepath.Join(dir, "passwd"), Group: filepath.Join(dir, "group"),
		NSSwitch: filepath.Join(dir, "nsswitch.conf"), Proc: filepath.Join(dir, "proc"), Root: filepath.Join(dir, "root"),
		Getent: filepath.Join(dir, "bin/getent"), GetSubIDs: filepath.Join(dir, "bin/getsubids"),
	}
	for _, d := range []string{f.Proc, f.Root, filepath.Dir(f.Getent)} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, f.Passwd, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n")
	write(t, f.Group, "root:x:0:\nnogroup:x:65534:\n")
	return f
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// program writes a shell script in the place of a program, which notes in the
// file log beside it with which arguments it was called.
func program(t testing.TB, path, script string) {
	t.Helper()
	write(t, path, "#!/bin/sh\necho \"$*\" >>'"+path+".log'\n"+script)
	if err := os.Chmod(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

// process adds a process to the process list.
func process(t *testing.T, f Files, pid int, uids, gids string) {
	t.Helper()
	dir := filepath.Join(f.Proc, strconv.Itoa(pid))
	write(t, filepath.Join(dir, "uid_map"), uids)
	write(t, filepath.Join(dir, "gid_map"), gids)
	write(t, filepath.Join(dir, "comm"), fmt.Sprintf("command %d\n", pid))
}

// show prints claims in a stable order, a line for each.
func show(claims []Claim) string {
	var out []string
	for _, c := range claims {
		kinds := map[[2]bool]string{{true, false}: "uid", {false, true}: "gid", {true, true}: "uid+gid"}[[2]bool{c.UID, c.GID}]
		out = append(out, fmt.Sprintf("%d-%d %s %s %s %s\n", c.From, c.To, kinds, c.Kind, c.Holder, c.Source))
	}
	slices.Sort(out)
	return strings.Join(out, "")
}

func facts(t testing.TB, f Files) Facts {
	t.Helper()
	out, err := f.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// shown are the claims of a kind, with the paths of the host cut off.
func shown(f Files, list []Claim, kind string) string {
	var out []Claim
	for _, c := range list {
		if string(c.Kind) == kind {
			out = append(out, c)
		}
	}
	return strings.ReplaceAll(strings.ReplaceAll(show(out), f.Root+"/", "/"), filepath.Dir(f.SubUID)+"/", "")
}

func want(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func replacePaths(text string, f Files) string {
	return strings.NewReplacer("%u", f.SubUID, "%g", f.SubGID).Replace(text)
}
