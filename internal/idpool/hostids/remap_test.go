package hostids

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"fief/internal/words/fault"
)

// newAccounts is a host with a few users.
func newAccounts(t testing.TB) Files {
	t.Helper()
	f := newHost(t)
	write(t, f.Passwd, `root:x:0:0:root:/root:/bin/bash
toor:x:0:0:also root:/root:/bin/bash
# comment
ann:x:1000:1000::/home/ann:/bin/bash
bob:x:1001:1001::/home/bob:/bin/bash
eve:x:1002:1000::/home/eve:/bin/bash
+::::::
`)
	write(t, f.Group, "root:x:0:\nann:x:1000:\nbob:x:1001:ann,eve\nstaff:x:50:\n")
	write(t, f.SubUID, "ann:200000:1000\n1001:300000:65536\nann:1000:1\nann:201000:64535\neve:400000:65536\n")
	write(t, f.SubGID, "bob:500000:65536\nann:600000:65536\n")
	return f
}

func TestRemapSpecifications(t *testing.T) {
	const annUID, annGID = "0:200000:1000,1000:1000:1,1001:201000:64535", "0:600000:65536"
	for _, c := range []struct{ spec, name, uid, gid, err string }{
		{"ann", "ann:ann", annUID, annGID, ""},
		{"1000", "ann:ann", annUID, annGID, ""},
		{"ann:staff", "ann:staff", annUID, annGID, ""},
		{"ann:50", "ann:staff", annUID, annGID, ""},
		{"1000:staff", "ann:staff", annUID, annGID, ""},
		{"1000:50", "ann:staff", annUID, annGID, ""},
		{"bob", "bob:bob", "0:300000:65536", "0:500000:65536", ""},
		{"root", "", "", "", `cannot use userns-remap root: root cannot be remapped with itself`},
		{"0", "", "", "", `cannot use userns-remap 0: root cannot be remapped with itself`},
		{"0:ann", "", "", "", `cannot use userns-remap 0:ann: root cannot be remapped with itself`},
		{"toor:root", "", "", "", `cannot use userns-remap toor:root: root cannot be remapped with itself`},
		{"eve:staff", "", "", "", `error creating ID mappings: no subgid ranges found for user "eve"`},
		{"eve", "", "", "", `Error during gid lookup for "eve": no matching entries in group file`},
		{"1002", "", "", "", `Gid 1002 has no entry in /etc/group: no matching entries in group file`},
		{"nobody", "", "", "", `Error during uid lookup for "nobody": no matching entries in passwd file`},
		{"4711", "", "", "", `Uid 4711 has no entry in /etc/passwd: no matching entries in passwd file`},
		{"ann:crew", "", "", "", `Error during groupname lookup for "crew": no matching entries in group file`},
		{"ann:4711", "", "", "", `Gid 4711 has no entry in /etc/passwd: no matching entries in group file`},
		{"ann:bob:root", "", "", "", `Invalid user/group specification in --userns-remap: "ann:bob:root"`},
		{"", "", "", "", `Invalid user/group specification in --userns-remap: ""`},
		{":", "", "", "", `Invalid user/group specification in --userns-remap: ":"`},
		{"ann:", "", "", "", `Invalid user/group specification in --userns-remap: "ann:"`},
	} {
		t.Run(c.spec, func(t *testing.T) {
			pair, name, err := Remap(c.spec, newAccounts(t))
			if c.err != "" {
				if err == nil || err.Error() != c.err || fault.Is(err, fault.Internal) {
					t.Errorf("%v\nwant %s", err, c.err)
				}
				return
			}
			if err != nil || name != c.name || pair.UID.List() != c.uid || pair.GID.List() != c.gid {
				t.Errorf("%s %s %s %v", name, pair.UID.List(), pair.GID.List(), err)
			}
		})
	}
}

func TestRemapRefusesWrongLines(t *testing.T) {
	for line, want := range map[string]string{
		"ann:x:65536":          "cannot use line 2 of %s: its numbers are not decimal or too large",
		"ann:100000:-1":        "cannot use line 2 of %s: its numbers are not decimal or too large",
		"ann:100000:0":         "cannot use line 2 of %s: its count is zero",
		"ann:4294967295:1":     "cannot use line 2 of %s: its ids go past 4294967294",
		"ann:0:65536":          "cannot use line 2 of %s: it gives away host id 0, root",
		"ann:90000:20000":      "cannot use the lines of user ann in %s: cannot use id map entry 0:100000:10: host ids overlap those of 10:90000:20000",
		"ann:100010:400000000": "",
	} {
		f := newAccounts(t)
		write(t, f.SubUID, "ann:100000:10\n"+line+"\n")
		_, _, err := Remap("ann", f)
		if want == "" && err != nil || want != "" && (err == nil || err.Error() != fmt.Sprintf(want, f.SubUID) || !fault.Is(err, fault.Invalid)) {
			t.Errorf("%s: %v", line, err)
		}
	}
	f := newAccounts(t)
	var many strings.Builder
	for i := range 341 {
		fmt.Fprintf(&many, "ann:%d:1\n", 100000+2*i)
	}
	write(t, f.SubUID, many.String())
	if _, _, err := Remap("ann", f); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "entry 341") {
		t.Error(err)
	}
}

func TestDefaultMakesTheUser(t *testing.T) {
	f := newAccounts(t)
	if err := os.Chmod(f.Passwd, 0o640); err != nil {
		t.Fatal(err)
	}
	write(t, f.SubUID, "ann:100000:65536\nbob:165537:10") // no newline at the end
	pair, name, err := Remap("default", f)
	if err != nil {
		t.Fatal(err)
	}
	if name != "dockremap:dockremap" || pair.UID.List() != "0:165547:65536" || !pair.UID.Equal(pair.GID) {
		t.Errorf("%s %s %s", name, pair.UID.List(), pair.GID.List())
	}
	for path, want := range map[string]string{
		f.Passwd: "\n+::::::\ndockremap:*:999:999::/nonexistent:/bin/false\n",
		f.Group:  "\nstaff:x:50:\ndockremap:*:999:\n",
		f.SubUID: "\nbob:165537:10\ndockremap:165547:65536\n",
		f.SubGID: "\nann:600000:65536\ndockremap:165547:65536\n",
	} {
		if text := read(t, path); !strings.HasSuffix(text, want) {
			t.Errorf("%s ends\n%s\nwant\n%s", path, text, want)
		}
	}
	if st, err := os.Stat(f.Passwd); err != nil || st.Mode() != 0o640 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	before := all(t, f)
	if again, _, err := Remap("default", f); err != nil || !again.Equal(pair) || all(t, f) != before {
		t.Errorf("the second call is not the same: %v", err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(text)
}

func all(t testing.TB, f Files) string {
	return read(t, f.Passwd) + "---\n" + read(t, f.Group) + "---\n" + read(t, f.SubUID) + "---\n" + read(t, f.SubGID)
}

// TestDefaultCompletesWhatIsThere begins with every part of the work done,
// which is also what a killed call leaves.
func TestDefaultCompletesWhatIsThere(t *testing.T) {
	for parts := range 16 {
		f := newHost(t)
		done := func(bit int, path, line string) {
			if parts&bit != 0 {
				write(t, path, read(t, path)+line+"\n")
			}
		}
		done(1, f.Group, "dockremap:x:700:")
		done(2, f.Passwd, "dockremap:x:701:700::/:/bin/false")
		done(4, f.SubUID, "dockremap:3000000:65536")
		done(8, f.SubGID, "dockremap:4000000:70000")
		for _, path := range []string{f.Passwd, f.SubGID} { // of a call that was killed while it wrote
			write(t, filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".fief"), "half a fi")
		}
		pair, name, err := Remap("default", f)
		if err != nil || name != "dockremap:dockremap" {
			t.Fatalf("%04b: %s, %v", parts, name, err)
		}
		wantUID, wantGID := "0:100000:65536", "0:100000:65536"
		if parts&4 != 0 {
			wantUID = "0:3000000:65536"
		}
		if parts&8 != 0 {
			wantGID = "0:4000000:70000"
		}
		if pair.UID.List() != wantUID || pair.GID.List() != wantGID {
			t.Errorf("%04b: %s, %s", parts, pair.UID.List(), pair.GID.List())
		}
		if n := strings.Count(all(t, f), "dockremap"); n != 4 {
			t.Errorf("%04b: dockremap is named %d times:\n%s", parts, n, all(t, f))
		}
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(f.Passwd), ".*.fief")); left != nil {
			t.Errorf("%04b: %v is left", parts, left)
		}
	}
}

func TestDefaultStepsAroundEverybody(t *testing.T) {
	f := newHost(t)
	write(t, f.SubUID, "ann:100000:65536\n")
	write(t, f.SubGID, "bob:165536:65536\nfief:300000:10\n")
	write(t, f.Passwd, read(t, f.Passwd)+"far:x:231100:0::/:/bin/sh\n")
	process(t, f, 7, "0 300010 100\n", "0 300110 90000\n")
	pair, _, err := Remap("default", f)
	if err != nil || pair.UID.List() != "0:231101:65536" {
		t.Errorf("%s, %v", pair.UID.List(), err)
	}
	f.Leased = func() ([]Claim, error) { return []Claim{{From: 231101, To: 231102}, {From: 400000, To: 500000}}, nil }
	write(t, f.SubUID, "ann:100000:65536\n")
	write(t, f.SubGID, "bob:165536:65536\n")
	if err := os.RemoveAll(filepath.Join(f.Proc, "7")); err != nil {
		t.Fatal(err)
	}
	pair, _, err = Remap("default", f)
	if err != nil || pair.UID.List() != "0:231102:65536" {
		t.Errorf("%s, %v", pair.UID.List(), err)
	}
}

func TestDefaultStepsAroundOverlapsAndEngines(t *testing.T) {
	f := newHost(t)
	write(t, f.SubUID, "ann:100000:200000\nbob:150000:10000\nkubelet:300000:65536\n")
	if err := os.MkdirAll(f.below(dockerRoot+"/365000.365536"), 0o700); err != nil {
		t.Fatal(err)
	}
	pair, _, err := Remap("default", f)
	if err != nil || pair.UID.List() != "0:431072:65536" || !pair.UID.Equal(pair.GID) {
		t.Errorf("%s %s, %v", pair.UID.List(), pair.GID.List(), err)
	}
	write(t, f.SubUID, "ann:100000:2147383648\n")
	before := all(t, f)
	_, _, err = Remap("default", f)
	if !fault.Is(err, fault.Exhausted) || all(t, f) != before ||
		err.Error() != `Error during "dockremap" user creation: cannot find ids for user dockremap: no 65536 ids below 2147483648 are free` {
		t.Error(err)
	}
}

// TestGapIsTheFirst holds the gap against a search of every place where one
// could begin.
func TestGapIsTheFirst(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		var used []Claim
		starts := []uint64{remapFirst}
		for range rapid.IntRange(0, 8).Draw(r, "claims") {
			from := uint64(rapid.IntRange(0, 20).Draw(r, "from")) * 20000
			c := Claim{From: from, To: from + 1 + uint64(rapid.IntRange(0, 9).Draw(r, "size"))*20000}
			used, starts = append(used, c), append(starts, max(c.To, remapFirst))
		}
		free := func(first uint64) bool {
			return !slices.ContainsFunc(used, func(c Claim) bool { return c.From < first+remapIDs && first < c.To })
		}
		slices.Sort(starts)
		want := starts[slices.IndexFunc(starts, free)]
		if got, ok := gap(used); !ok || got != want {
			r.Fatalf("%v: %d, want %d", used, got, want)
		}
	})
}

func TestDefaultFromMany(t *testing.T) {
	f := newAccounts(t)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if _, _, err := Remap("default", f); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := strings.Count(all(t, f), "dockremap"); n != 4 {
		t.Errorf("dockremap is named %d times:\n%s", n, all(t, f))
	}
}

func TestDefaultWaitsForTheLockOfAccounts(t *testing.T) {
	f := newAccounts(t)
	lock, err := os.OpenFile(filepath.Join(filepath.Dir(f.Passwd), ".pwd.lock"), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.FcntlFlock(lock.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, _, err := Remap("default", f)
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatal("did not wait:", err)
	case <-time.After(100 * time.Millisecond):
	}
	if strings.Contains(all(t, f), "dockremap") {
		t.Error("wrote while another had the lock")
	}
	if err := unix.FcntlFlock(lock.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestDefaultThroughLinksAndErrors(t *testing.T) {
	f := newAccounts(t)
	real := f.Passwd + ".real"
	if err := os.Rename(f.Passwd, real); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Base(real), f.Passwd); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Remap("default", f); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Lstat(f.Passwd); err != nil || st.Mode()&os.ModeSymlink == 0 || !strings.Contains(read(t, real), "dockremap") {
		t.Errorf("the link was replaced: %v, %v", st.Mode(), err)
	}
	f = newAccounts(t)
	f.SubGID = filepath.Join(f.SubGID, "below", "a file")
	if _, _, err := Remap("default", f); err == nil || !strings.HasPrefix(err.Error(), `Error during "dockremap" user creation: `) {
		t.Error(err)
	}
}

// TestMapOfLinesIsTheirConcatenation compares a remapped user's map, id by id,
// with the plain list of the ids in the user's lines.
func TestMapOfLinesIsTheirConcatenation(t *testing.T) {
	f := newAccounts(t)
	rapid.Check(t, func(r *rapid.T) {
		var text strings.Builder
		var list []uint32
		next := uint32(1)
		for i := range rapid.IntRange(1, 12).Draw(r, "lines") {
			next += uint32(rapid.IntRange(0, 3).Draw(r, "gap"))
			n := uint32(rapid.IntRange(1, 5).Draw(r, "count"))
			owner := rapid.SampledFrom([]string{"ann", "1000", "bob", "annx"}).Draw(r, "owner")
			fmt.Fprintf(&text, "%s:%d:%d\n", owner, next, n)
			if i == 0 {
				fmt.Fprintf(&text, "ann:%d:2\n", 1000)
				list = append(list, 1000, 1001)
				if owner != "bob" && owner != "annx" {
					list = append(idsOf(next, n), list...)
				}
			} else if owner == "ann" || owner == "1000" {
				list = append(list, idsOf(next, n)...)
			}
			next += n
		}
		write(t, f.SubUID, text.String())
		pair, _, err := Remap("ann", f)
		if err != nil {
			r.Fatal(err)
		}
		if int(pair.UID.Size()) != len(list) {
			r.Fatalf("%s\n%s\nwant %v", text.String(), pair.UID.List(), list)
		}
		for in, host := range list {
			if got, ok := pair.UID.ToHost(insideOf(in)); !ok || uint32(got) != host {
				r.Fatalf("%s\n%s: %d is %d, want %d", text.String(), pair.UID.List(), in, got, host)
			}
		}
	})
}
