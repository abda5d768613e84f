package hostids

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

// directory answers like getent(1) with three entries.
const directory = `db=$1; shift; code=0
for key do
	case $db:$key in
	passwd:lda|passwd:70000) echo 'lda:*:70000:70001:LDAP user:/home/lda:/bin/sh' ;;
	passwd:600000) echo 'far:*:600000:600000:::' ;;
	group:crew|group:70001) echo 'crew:*:70001:lda' ;;
	*) code=2 ;;
	esac
done
exit $code
`

func TestNSS(t *testing.T) {
	f := newHost(t)
	program(t, f.Getent, directory)
	ids := []idmap.Host{70000, 70001, 524288, 600000}
	for _, text := range []string{"", "passwd: files\ngroup: files [NOTFOUND=return]\nhosts: files dns\n"} {
		write(t, f.NSSwitch, text)
		if got, err := f.NSS(t.Context(), ids); err != nil || got != nil || read(t, f.Getent+".log") != "" {
			t.Errorf("%q: asked: %s, %v", text, show(got), err)
		}
	}
	write(t, f.NSSwitch, "passwd: files sss\ngroup: files [SUCCESS=merge] sss\n")
	got, err := f.NSS(t.Context(), ids)
	if err != nil {
		t.Error(err)
	}
	want(t, show(got), "600000-600001 uid user far getent passwd\n70000-70001 uid user lda getent passwd\n70001-70002 gid user crew getent group\n")
	write(t, f.NSSwitch, "group: files systemd\n")
	if got, err := f.NSS(t.Context(), ids); err != nil || len(got) != 1 {
		t.Errorf("%s, %v", show(got), err)
	}
}

func TestNSSAsksForManyAtOnce(t *testing.T) {
	f := newHost(t)
	program(t, f.Getent, directory)
	write(t, f.NSSwitch, "passwd: files ldap\ngroup: ldap\n")
	var ids []idmap.Host
	for i := range 300 {
		ids = append(ids, idmap.Host(524288+65536*i))
	}
	if got, err := f.NSS(t.Context(), ids); err != nil || got != nil {
		t.Errorf("%s, %v", show(got), err)
	}
	if n := strings.Count(read(t, f.Getent+".log"), "\n"); n != 6 {
		t.Errorf("getent was run %d times", n)
	}
}

func TestNSSThatFails(t *testing.T) {
	for name, script := range map[string]string{
		"hangs": "echo far:x:600000:6:::\nsleep 60\n", "breaks": "echo far:x:600000:6:::\nexit 3\n", "prints without end": "echo far:x:600000:6:::\nyes\n", "is killed": "echo far:x:600000:6:::\nkill -9 $$\n",
	} {
		f := newHost(t)
		program(t, f.Getent, script)
		write(t, f.NSSwitch, "passwd: sss\n")
		f.granting = time.Minute / 2
		if name == "hangs" || name == "prints without end" {
			f.granting = 2 * time.Second // an emulated processor takes some of it to print the first line
		}
		began := time.Now()
		got, err := f.NSS(t.Context(), []idmap.Host{600000})
		if !fault.Is(err, fault.Unavailable) || time.Since(began) > 20*time.Second {
			t.Errorf("%s: %v after %s", name, err, time.Since(began))
		}
		if len(got) != 1 {
			t.Errorf("%s: what it printed is lost", name)
		}
	}
	f := newHost(t)
	write(t, f.NSSwitch, "passwd: sss\n")
	if got, err := f.NSS(t.Context(), []idmap.Host{600000}); err != nil || got != nil {
		t.Errorf("without getent: %s, %v", show(got), err)
	}
	program(t, f.Getent, "sleep 60\n")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := f.NSS(ctx, []idmap.Host{600000}); err == nil {
		t.Error("it is not canceled")
	}
}

func TestNamesOfIds(t *testing.T) {
	f := newAccounts(t)
	program(t, f.Getent, directory)
	write(t, f.NSSwitch, "passwd: files sss\ngroup: files sss\n")
	ctx := t.Context()
	for id, want := range map[idmap.Host]string{0: "root", 1000: "ann", 70000: "lda", 50: "", 70001: ""} {
		if got, ok := f.UserName(ctx, id); got != want || ok != (want != "") {
			t.Errorf("user %d: %q, %t", id, got, ok)
		}
	}
	for id, want := range map[idmap.Host]string{0: "root", 50: "staff", 70001: "crew", 70000: "", 1002: ""} {
		if got, ok := f.GroupName(ctx, id); got != want || ok != (want != "") {
			t.Errorf("group %d: %q, %t", id, got, ok)
		}
	}
}

// TestRealGetent asks the machine's own.
func TestRealGetent(t *testing.T) {
	path, err := exec.LookPath("getent")
	if err != nil {
		t.Skip("tool: no getent")
	}
	f := newHost(t)
	f.Getent = path
	write(t, f.NSSwitch, "passwd: files other\ngroup: files other\n")
	got, err := f.NSS(t.Context(), []idmap.Host{0, 1999999999})
	if err != nil {
		t.Fatal(err)
	}
	want(t, show(got), "0-1 gid user root getent group\n0-1 uid user root getent passwd\n")
	f = f.complete()
	if a, err := f.account(t.Context(), "passwd", "daemon"); err != nil || a.id != 1 { // not in f's own passwd
		t.Errorf("%+v, %v", a, err)
	}
	if _, err := f.account(t.Context(), "group", "no-such-group"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

// ranges answers like getsubids(1).
const ranges = `flag=
if [ "$1" = -g ]; then flag=-g; shift; fi
case "$flag$1" in
ann) echo '0: ann 700000 1000'; echo '1: ann 200000 64536' ;;
-gann) echo '0: ann 300000 65536' ;;
root) echo '0: root 2147483648 65536' ;;
lda|-glda) echo "0: $1 800000 65536" ;;
fief|-gfief) echo "0: $1 655360 131072" ;;
bad) echo '0: bad 0 10' ;;
*) echo 'Error fetching ranges' >&2; exit 1 ;;
esac
`

func TestSubordinateIdsByNameService(t *testing.T) {
	f := newAccounts(t)
	program(t, f.GetSubIDs, ranges)
	write(t, f.NSSwitch, "subid: files\n")
	if pair, _, err := Remap("bob", f); err != nil || pair.UID.List() != "0:300000:65536" {
		t.Errorf("files: %s, %v", pair.UID.List(), err)
	}
	write(t, f.NSSwitch, "passwd: files\n# subid: files\nsubid: sss files\n")
	pair, _, err := Remap("1000", f)
	if err != nil || pair.UID.List() != "0:700000:1000,1000:200000:64536" || pair.GID.List() != "0:300000:65536" {
		t.Errorf("%s %s %v", pair.UID.List(), pair.GID.List(), err)
	}
	if pair, err := Named("1000", "lda", f); err != nil || pair.UID.List() != "0:700000:1000,1000:200000:64536" || pair.GID.List() != "0:800000:65536" {
		t.Errorf("%s %s %v", pair.UID.List(), pair.GID.List(), err)
	}
	_, _, err = Remap("bob", f)
	if err == nil || err.Error() != `error creating ID mappings: no subuid ranges found for user "bob"` || !strings.Contains(fault.HintOf(err), "sss") {
		t.Errorf("%v, %s", err, fault.HintOf(err))
	}
	if _, err := Named("bad", "ann", f); err == nil || err.Error() != "cannot use range 1 that getsubids has for bad: it gives away host id 0, root" {
		t.Error(err)
	}
	before := all(t, f)
	_, _, err = Remap("default", f)
	if err == nil || err.Error() != `Error during "dockremap" user creation: no subuid ranges found for user "dockremap"` || all(t, f) != before {
		t.Error(err)
	}
	got := facts(t, f)
	if text := show(got.Claims); !strings.Contains(text, "2147483648-2147549184 uid subid root getsubids, sss\n") || !strings.Contains(text, "655360-786432 gid subid fief getsubids, sss\n") {
		t.Error(text)
	}
	if !strings.Contains(strings.Join(got.Owners, " "), "fief") || len(got.Warnings) != 0 {
		t.Errorf("%q, %q", got.Owners, got.Warnings)
	}
}

func TestSubordinateIdsThatCannotBeKnown(t *testing.T) {
	f := newAccounts(t)
	write(t, f.NSSwitch, "subid: sss\n")
	_, _, err := Remap("ann", f)
	if !fault.Is(err, fault.Unsupported) || !strings.Contains(fault.HintOf(err), "uidmap") {
		t.Errorf("%v, %s", err, fault.HintOf(err))
	}
	if got := facts(t, f); len(got.Warnings) != 1 {
		t.Errorf("%q", got.Warnings)
	}
	program(t, f.GetSubIDs, "sleep 60\n")
	f.granting = 300 * time.Millisecond
	if _, err := Named("ann", "", f); !fault.Is(err, fault.Unavailable) {
		t.Error(err)
	}
	began := time.Now()
	if got := facts(t, f); len(got.Warnings) != 1 || time.Since(began) > 20*time.Second {
		t.Errorf("%q after %s", got.Warnings, time.Since(began))
	}
}

// TestRealGetsubids asks the program of package uidmap, which reads /etc itself.
func TestRealGetsubids(t *testing.T) {
	path, err := exec.LookPath("getsubids")
	if err != nil {
		t.Skip("tool: no getsubids")
	}
	f := Files{GetSubIDs: path}.complete()
	lines, err := readSub("/etc/subuid")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		list, err := f.getsubids(t.Context(), "uid", l.owner)
		if err != nil || len(list) == 0 {
			t.Errorf("%s: %v, %v", l.owner, list, err)
		}
	}
	if list, err := f.getsubids(t.Context(), "gid", "nobody-here"); err != nil || list != nil {
		t.Errorf("%v, %v", list, err)
	}
}

func TestUsersOfNameServices(t *testing.T) {
	f := newAccounts(t)
	program(t, f.Getent, directory)
	write(t, f.SubUID, "lda:200000:65536\n70000:300000:1\n")
	write(t, f.SubGID, "70000:400000:65537\n")
	for _, spec := range []string{"lda:crew", "70000:70001", "lda:70001", "70000:crew"} {
		pair, name, err := Remap(spec, f)
		if err != nil || name != "lda:crew" || pair.UID.List() != "0:200000:65536,65536:300000:1" || pair.GID.List() != "0:400000:65537" {
			t.Errorf("%s: %s %s %s %v", spec, name, pair.UID.List(), pair.GID.List(), err)
		}
	}
	for spec, want := range map[string]string{
		"none":       `Error during uid lookup for "none": getent unable to find entry "none" in passwd database`,
		"4711":       `Uid 4711 has no entry in /etc/passwd: getent unable to find entry "4711" in passwd database`,
		"lda":        `Error during gid lookup for "lda": getent unable to find entry "lda" in group database`,
		"70000":      `Gid 70000 has no entry in /etc/group: getent unable to find entry "70000" in group database`,
		"lda:none":   `Error during groupname lookup for "none": getent unable to find entry "none" in group database`,
		"lda:4711":   `Gid 4711 has no entry in /etc/passwd: getent unable to find entry "4711" in group database`,
		"-s":         `Error during uid lookup for "-s": no matching entries in passwd file`,
		"lda\n:crew": `Error during uid lookup for "lda\n": no matching entries in passwd file`,
	} {
		if _, _, err := Remap(spec, f); err == nil || err.Error() != want || !fault.Is(err, fault.NotFound) {
			t.Errorf("%q: %v\nwant %s", spec, err, want)
		}
	}
	program(t, f.Getent, "exit 1\n")
	if _, _, err := Remap("none", f); !fault.Is(err, fault.Unavailable) ||
		err.Error() != `Error during uid lookup for "none": getent reported invalid parameters/database unknown` {
		t.Error(err)
	}
	program(t, f.Getent, "sleep 60\n")
	f.granting = 300 * time.Millisecond
	if _, _, err := Remap("none", f); !fault.Is(err, fault.Unavailable) {
		t.Error(err)
	}
	if pair, _, err := Remap("ann:staff", newAccounts(t)); err != nil || pair.UID.IsZero() {
		t.Error(err)
	}
}

// TestDefaultWithoutAnAnswer: nothing is given to the user dockremap while the name
// services do not say whose ids are; what the files have needs no answer.
func TestDefaultWithoutAnAnswer(t *testing.T) {
	f := newHost(t)
	program(t, f.Getent, `[ "$2" != dockremap ] || exit 2; sleep 60`+"\n")
	write(t, f.NSSwitch, "passwd: files sss\n")
	f.granting = 3 * time.Second // for the first answer, on a slow machine
	before := read(t, f.Passwd) + read(t, f.Group)
	for range 2 {
		_, _, err := Remap("default", f)
		if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "getent passwd: "+f.Getent+" did not answer within 3s") {
			t.Fatalf("%v", err)
		}
		if hint := fault.HintOf(err); !strings.Contains(hint, "dockremap:FIRST:65536 to "+f.SubUID+" and "+f.SubGID) {
			t.Errorf("hint %q", hint)
		}
		// with a user, only its ranges are missing
		write(t, f.Passwd, "root:x:0:0:root:/root:/bin/sh\ndockremap:*:990:990::/:/bin/false\n")
		write(t, f.Group, "root:x:0:\ndockremap:*:990:\n")
		if text := read(t, f.Passwd) + read(t, f.Group) + read(t, f.SubUID) + read(t, f.SubGID); strings.Contains(text, "65536") || before == text {
			t.Errorf("written: %s", text)
		}
	}
	write(t, f.SubUID, "dockremap:700000:65536\n")
	write(t, f.SubGID, "dockremap:700000:65536\n")
	if pair, _, err := Remap("default", f); err != nil || pair.UID.List() != "0:700000:65536" {
		t.Errorf("by the files alone: %s, %v", pair.UID.List(), err)
	}
	_, err := Named("far", "", f)
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "getent passwd far: ") || fault.HintOf(err) == "" {
		t.Errorf("a user that only a service may know: %v, %s", err, fault.HintOf(err))
	}
}

func TestDefaultStepsAroundNameServices(t *testing.T) {
	f := newHost(t)
	program(t, f.Getent, `db=$1; shift; for key do
	[ $db = passwd ] && [ $key -ge 110000 ] && [ $key -lt 300000 ] && echo u$key:x:$key:1:::
	[ $key = 999 ] && echo system:x:999:999:::
done; exit 2`)
	write(t, f.NSSwitch, "passwd: files sss\n")
	f.granting = time.Minute // an emulated processor takes long for that many keys
	pair, _, err := Remap("default", f)
	if err != nil || pair.UID.List() != "0:362144:65536" {
		t.Errorf("%s, %v", pair.UID.List(), err)
	}
	if text := read(t, f.Passwd); !strings.Contains(text, "dockremap:*:998:998:") {
		t.Error(text)
	}
	if _, err := os.Stat(f.Getent + ".log"); err != nil {
		t.Error(err)
	}
}
