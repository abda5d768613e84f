package unpack

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fief/internal/words/idmap"

	"golang.org/x/sys/unix"
)

// accounts unpacks the entries and returns what was noted. A reader that is
// stuck in a pipe fails the test instead of hanging it.
func accounts(t *testing.T, entries ...entry) (uid, gid idmap.Inside) {
	t.Helper()
	stuck := time.AfterFunc(20*time.Second, func() { panic("unpacking hangs") })
	defer stuck.Stop()
	_, facts, err := unpackTo(t, Limits{}, entries...)
	if err != nil {
		t.Fatal(err)
	}
	return facts.PasswdUID, facts.PasswdGID
}

func TestAccounts(t *testing.T) {
	const root, user, nobody = "root:x:0:0:root:/root:/bin/sh\n", "app:x:1000:2000::/:/bin/sh\n", "nobody:x:65534:65534::/:/bin/false\n"
	for name, c := range map[string]struct {
		passwd, group string
		uid, gid      idmap.Inside
	}{
		"usual":                 {root + user + nobody, "root:x:0:\nwheel:x:3000:app,root\n", 1000, 3000},
		"groups of users":       {root + user, "root:x:0:\n", 1000, 2000},
		"nobody":                {root + nobody + "nfsnobody:x:65534:65534::/:\n", "nogroup:x:65533:\nnobody:x:65534:\n", 0, 0},
		"above nobody":          {root + nobody + "big:x:100000:65535::/:\n", "", 100000, 65535},
		"no newline at the end": {"app:x:7:8", "app:x:9", 7, 9},
		"empty":                 {"", "", 0, 0},
		"garbage":               {"x\n::::\n:x:5:5:\n\x00\xff:x:y:z\na:b\n", "\n\n:\na:x:1e3:\na:x:-1:\na:x:+5:\na:x: 5:\n", 0, 0},
		"no id":                 {"a:x:4294967295:4294967296::/:\nb:x:99999999999999999999:1::/:\n", "a:x:4294967295:\n", 0, 1},
		"the largest id":        {"a:x:4294967294:4294967293::/:\n", "", idmap.Max, idmap.Max - 1},
		"comments and NIS":      {"#a:x:5:5\n+b:x:6:6\n-c:x:7:7\n+::::::\n", "#a:x:5:\n+:::\n", 0, 0},
		"one half of a line":    {"a:x:12\nb:x:x:13\n", "", 12, 13},
	} {
		uid, gid := accounts(t, file("etc/passwd", c.passwd), file("etc/group", c.group))
		if uid != c.uid || gid != c.gid {
			t.Errorf("%s: %d, %d, want %d, %d", name, uid, gid, c.uid, c.gid)
		}
	}
}

// Podman's TestParseMountedFiles; its sizes are one more than the highest id.
func TestPodmansAccounts(t *testing.T) {
	const root = "root:x:0:0:root:/root:/bin/bash\n"
	for _, c := range []struct {
		passwd, group string
		size          idmap.Inside
	}{
		{root + "admin:x:1000:1000:admin:/home:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n", "root:x:0:\nadmin:x:1000:\n", 1001},
		{root + "admin:x:4001:4001:admin:/home:/bin/sh\n", "", 4002},
		{"", "root:x:0:\nadmin:x:3000:\nnobody:x:65534:\n", 3001},
		{"", "root:x:0:\nadmin:x:4000:\nnogroup:x:65533:\n", 4001},
	} {
		if uid, gid := accounts(t, file("etc/passwd", c.passwd), file("etc/group", c.group)); max(uid, gid)+1 != c.size {
			t.Errorf("%q, %q: %d, %d", c.passwd, c.group, uid, gid)
		}
	}
}

// Whatever else a layer has at the names, nothing is noted, nothing is followed
// and nothing hangs.
func TestNoAccounts(t *testing.T) {
	const line = "app:x:1000:1000::/:/bin/sh\n"
	outside := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(outside, 0o600); err != nil {
		t.Fatal(err)
	}
	host := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(host, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	fifo := func(name string) entry {
		return entry{tar.Header{Name: name, Typeflag: tar.TypeFifo, Mode: 0o600}, ""}
	}
	for name, entries := range map[string][]entry{
		"none":                      {file("etc/hosts", line)},
		"pipe":                      {fifo("etc/passwd"), fifo("etc/group")},
		"link to a pipe outside":    {symlink("etc/passwd", outside), symlink("etc/group", outside)},
		"link to a file outside":    {symlink("etc/passwd", host), symlink("etc/group", host)},
		"link to the host by /proc": {symlink("etc/passwd", "/proc/1/root/etc/passwd")},
		"link inside":               {file("usr/passwd", line), symlink("etc/passwd", "../usr/passwd"), symlink("etc/group", "/usr/passwd")},
		"directory through a link":  {file("usr/etc/passwd", line), file("usr/etc/group", line), symlink("etc", "usr/etc")},
		"etc outside":               {symlink("etc", filepath.Dir(host))},
		"directory":                 {dir("etc/passwd"), dir("etc/group")},
		"etc is a file":             {file("etc", line)},
		"whiteouts":                 {file("etc/.wh.passwd", ""), file("etc/.wh.group", "")},
		"etc is gone":               {file(".wh.etc", "")},
		"loop":                      {symlink("etc/passwd", "passwd")},
		"replaced":                  {file("etc/passwd", line), fifo("etc/passwd")},
	} {
		if uid, gid := accounts(t, entries...); uid != 0 || gid != 0 {
			t.Errorf("%s: %d, %d", name, uid, gid)
		}
	}
}

// What counts is what the directory holds in the end.
func TestAccountsInTheEnd(t *testing.T) {
	const old, line = "a:x:5000:5000::/:\n", "a:x:1000:1000::/:\n"
	for name, entries := range map[string][]entry{
		"replaced":             {file("etc/passwd", old), file("etc/passwd", line)},
		"hard link":            {file("pw", line), hardlink("etc/passwd", "pw")},
		"link replaced":        {symlink("etc/passwd", "/x"), file("etc/passwd", line)},
		"unreadable":           {entry{tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0}, line}},
		"marked, not hidden":   {file("etc/passwd", line), file("etc/.wh.passwd", "")},
		"in an opaque one":     {file("etc/.wh..wh..opq", ""), file("etc/passwd", line)},
		"by an absolute name":  {file("/etc/./passwd", line)},
		"below a link's other": {dir("real"), symlink("x", "real"), file("x/passwd", old), file("etc/passwd", line)},
	} {
		if uid, gid := accounts(t, entries...); uid != 1000 || gid != 1000 {
			t.Errorf("%s: %d, %d", name, uid, gid)
		}
	}
}

func TestHugeAccounts(t *testing.T) {
	const line = "a:x:1000:1000::/:\n"
	filler := strings.Repeat("#"+strings.Repeat(" ", 1022)+"\n", maxAccounts>>10)
	for name, c := range map[string]struct {
		text string
		uid  idmap.Inside
	}{
		"beyond the limit":    {line + filler + "b:x:5000:5000::/:\n", 1000},
		"cut by the limit":    {line + filler[:maxAccounts-len(line)-len("\nb:x:50")] + "\nb:x:5000:1::/:\n", 1000},
		"one line":            {strings.Repeat("b:x:5000:5000::", 100_000), 0},
		"just within":         {filler[:maxAccounts-len(line)-1] + "\n" + line, 1000},
		"a long line at last": {line + strings.Repeat("z", 2*maxAccounts), 1000},
	} {
		if uid, _ := accounts(t, file("etc/passwd", c.text)); uid != c.uid {
			t.Errorf("%s: %d, want %d", name, uid, c.uid)
		}
	}
}

// Reading leaves the layer as the tar has it.
func TestAccountsKeepTheirTimes(t *testing.T) {
	e := file("etc/passwd", "a:x:1000:1000::/:\n")
	e.Format, e.ModTime, e.AccessTime = tar.FormatPAX, time.Unix(1600000000, 0), time.Unix(1500000000, 7)
	fs, _, err := unpackTo(t, Limits{}, e)
	if err != nil {
		t.Fatal(err)
	}
	if st := stat(t, fs, "etc/passwd"); st.Atim.Sec != 1500000000 || st.Atim.Nsec != 7 {
		t.Errorf("read at %d", st.Atim.Sec)
	}
}

// FuzzAccounts: any bytes give ids that can be mapped.
func FuzzAccounts(f *testing.F) {
	f.Add([]byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:\n"))
	f.Add([]byte("a:x:4294967295:4294967296:\n#\n+::::\n::\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		eachAccount(text, func(fields [][]byte) {
			for i := range 5 {
				if id := accountID(fields, i); id > idmap.Max || id == overflowID {
					t.Errorf("%q: %d", fields, id)
				}
			}
		})
	})
}
