// Package volumes_test runs real programs that are particular about who owns their
// files, on volumes and on directories of a host's user.
package volumes_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fief/internal/testenv"
)

// As the entrypoints of PostgreSQL's images do: root makes the directory the
// user's and becomes that user, who begins a database where there is none.
const postgres = `set -e
export PATH=$PATH:$(echo /usr/lib/postgresql/*/bin) LC_ALL=C
grep -q ^postgres: /etc/passwd || { echo postgres:x:999:999::/data:/bin/sh >>/etc/passwd; echo postgres:x:999: >>/etc/group; }
as="setpriv --reuid 999 --regid 999 --clear-groups"
mkdir -p /data/pg
chown -R postgres:postgres /data
chmod 700 /data /data/pg
[ -s /data/pg/PG_VERSION ] || $as initdb -D /data/pg -U postgres -A trust --no-sync
exec $as postgres -D /data/pg -c unix_socket_directories=/tmp -c listen_addresses= -c fsync=off -c shared_buffers=16MB
`

// As LinuxServer's images do: the user of the image gets the ids that the
// environment says, and the directory.
const puid = `set -e
grep -q ^abc: /etc/passwd || { echo abc:x:911:911::/config:/bin/false >>/etc/passwd; echo abc:x:911: >>/etc/group; }
groupmod -o -g "$PGID" abc
usermod -o -u "$PUID" abc
chown -R abc:abc /config
exec setpriv --reuid "$PUID" --regid "$PGID" --clear-groups sh -c 'echo of $(id -u):$(id -g) >>/config/log; chmod 600 /config/log; cat /config/log'
`

// script writes an entrypoint where every container can read it.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(open(t), "entry.sh")
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// open is a directory that others may pass through.
func open(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for p := dir; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// of is a directory of a host's user.
func of(t *testing.T, uid, gid int) string {
	t.Helper()
	dir := filepath.Join(open(t), "home")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	return dir
}

// owned fails for every file below a directory that is not a user's, and says how
// many there are.
func owned(t *testing.T, dir string, uid, gid uint32) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		n++
		if st := info.Sys().(*syscall.Stat_t); st.Uid != uid || st.Gid != gid {
			return fmt.Errorf("%s belongs to %d:%d, not to %d:%d", path, st.Uid, st.Gid, uid, gid)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return n
}

// query asks the database in a container, once it answers.
func query(t *testing.T, d *testenv.Daemon, name, sql string) string {
	t.Helper()
	for end := time.Now().Add(5 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		out, errs, code := d.Fief(t, "exec", "-u", "999:999", name, "sh", "-c", `exec /usr/lib/postgresql/*/bin/psql -h /tmp -U postgres -Atc "$0"`, sql)
		if code == 0 {
			return strings.TrimSpace(out)
		}
		state := d.Must(t, "inspect", "-f", "{{.State.Status}}", name)
		if state != "running" || time.Now().After(end) {
			logs, said, _ := d.Fief(t, "logs", name)
			t.Fatalf("%s: %s%s\nit is %s and says:\n%s%s", sql, out, errs, state, logs, said)
		}
	}
}

// TestPostgres: a database is begun, stopped, and used again by a container with
// other ids, on a volume, in which its files are the container's user's, and in a
// directory of a host's user, who stays the owner of every file.
func TestPostgres(t *testing.T) {
	testenv.NeedRoot(t)
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres"); len(found) == 0 {
		t.Fatal("PostgreSQL is not installed: test/deps.sh")
	}
	d := testenv.Start(t)
	entry := script(t, postgres)
	home := of(t, 1234, 1235)
	for what, mount := range map[string]string{
		"a volume":      "type=volume,src=tables,dst=/data",
		"a user's home": "type=bind,src=" + home + ",dst=/data,bind-idmap=match-user:999:999",
	} {
		run := func(name string, ids string) {
			d.Must(t, "run", "-d", "--name", name, "--network", "none", "--uidmap", "0:"+ids+":65536", "--gidmap", "0:"+ids+":65536",
				"-v", entry+":/entry.sh:ro", "--mount", mount, "host", "sh", "/entry.sh")
		}
		run("first", "2000000000")
		query(t, d, "first", "create table words (word text); insert into words values ('kept')")
		d.Must(t, "stop", "-t", "60", "first")
		if code := d.Must(t, "inspect", "-f", "{{.State.ExitCode}}", "first"); code != "0" {
			t.Errorf("%s: it ended with %s", what, code)
		}
		d.Must(t, "start", "first")
		if got := query(t, d, "first", "select word from words"); got != "kept" {
			t.Errorf("%s: after a restart it says %q", what, got)
		}
		d.Must(t, "stop", "-t", "60", "first")
		run("second", "2000131072")
		if got := query(t, d, "second", "insert into words values ('more'); select string_agg(word, ',') from words"); !strings.HasSuffix(got, "kept,more") {
			t.Errorf("%s: under another map it says %q", what, got)
		}
		if got := d.Must(t, "exec", "second", "stat", "-c", "%u:%g %a", "/data/pg/base"); got != "999:999 700" {
			t.Errorf("%s: inside the files are %s", what, got)
		}
		d.Must(t, "stop", "-t", "60", "second")
		d.Must(t, "rm", "first", "second")
	}
	if n := owned(t, home, 1234, 1235); n < 500 {
		t.Errorf("%d files in the user's directory", n)
	}
	at := d.Must(t, "volume", "inspect", "-f", "{{.Mountpoint}}", "tables")
	if n := owned(t, at, 999, 999); n < 500 {
		t.Errorf("%d files in the volume", n)
	}
}

// TestPUID: an image that gives its user the ids of the environment, at every
// start, finds its files again, and those of a host's user stay that user's.
func TestPUID(t *testing.T) {
	testenv.NeedRoot(t)
	d := testenv.Start(t)
	entry := script(t, puid)
	home := of(t, 1234, 1235)
	run := func(name, id, mount string) {
		t.Helper()
		d.Must(t, "create", "--name", name, "--network", "none", "-e", "PUID="+id, "-e", "PGID="+id, "-v", entry+":/entry.sh:ro", "--mount", mount, "host", "sh", "/entry.sh")
		for _, want := range []string{"of " + id + ":" + id, strings.Repeat("of "+id+":"+id+"\n", 2)} {
			out, errs, code := d.Fief(t, "start", "-a", name)
			if code != 0 || !strings.HasSuffix(strings.TrimSpace(out), strings.TrimSpace(want)) {
				t.Errorf("%s: %q, exit %d, %s", name, out, code, errs)
			}
		}
		d.Must(t, "rm", name)
	}
	run("home", "4321", "type=bind,src="+home+",dst=/config,bind-idmap=match-user:4321:4321")
	if n := owned(t, home, 1234, 1235); n != 2 {
		t.Errorf("%d files", n)
	}
	run("volume", "4321", "type=volume,src=config,dst=/config")
	run("others", "1000", "type=volume,src=config,dst=/config")
	owned(t, d.Must(t, "volume", "inspect", "-f", "{{.Mountpoint}}", "config"), 1000, 1000)
}
