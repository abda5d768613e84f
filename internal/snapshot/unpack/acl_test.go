package unpack

import (
	"archive/tar"
	"encoding/binary"
	"path/filepath"
	"testing"

	"fief/internal/words/fault"
)

// aclOf is an attribute of entries, each tag, permissions, id.
func aclOf(entries ...[3]uint32) string {
	out := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		out = binary.LittleEndian.AppendUint16(out, uint16(e[0]))
		out = binary.LittleEndian.AppendUint16(out, uint16(e[1]))
		out = binary.LittleEndian.AppendUint32(out, e[2])
	}
	return string(out)
}

const noID = 1<<32 - 1

func TestACLText(t *testing.T) {
	full := aclOf([3]uint32{1, 6, noID}, [3]uint32{2, 4, 5}, [3]uint32{2, 7, 1000}, [3]uint32{4, 4, noID}, [3]uint32{8, 6, 33}, [3]uint32{16, 7, noID}, [3]uint32{32, 0, noID})
	cases := map[string]struct{ text, want string }{
		"lines":     {"user::rw-\nuser:1000:rwx\nuser:5:r--\ngroup::r--\ngroup:33:rw-\nmask::rwx\nother::---\n", full},
		"commas":    {"u::rw,u:1000:rwx,u:5:r,g::r,g:33:rw,m::rwx,o::", full},
		"star":      {"user::rw-,user:joe:rwx:1000,user:sys:r--:5,group::r--,group:www:rw-:33,mask::rwx,other::---", full},
		"comments":  {"# file: x\nuser::rw-\nuser:1000:rwx\t#effective:r-x\nuser:5:r--\ngroup::r--\ngroup:33:rw-\nmask:rwx\nother:---", full},
		"mode only": {"user::rwx\ngroup::r-x\nother::r-x\n", ""},
		"empty":     {"", ""},
	}
	for name, c := range cases {
		got, err := ACLOfText(c.text)
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %x %v", name, got, err)
		}
	}
	for _, text := range []string{"user:joe:rwx", "user:-1:rwx", "user:4294967295:rwx", "user:1:rwz", "mask:1:rwx", "nobody::rwx", "rwx", "a:b:c:d:e", "user:1:r:x"} {
		if got, err := ACLOfText(text); err == nil {
			t.Errorf("%q became %x", text, got)
		}
	}
}

func FuzzACL(f *testing.F) {
	f.Add("user::rw-\nuser:1000:rwx\ngroup::r--\nmask::rwx\nother::---\n")
	f.Add("u::rw,u:joe:rwx:1000,g::r,m::rwx,o::")
	f.Fuzz(func(t *testing.T, text string) {
		raw, err := ACLOfText(text)
		if err != nil && raw != nil || len(raw) != 0 && (len(raw)-4)%8 != 0 {
			t.Fatalf("%q became %x, %v", text, raw, err)
		}
	})
}

// What is made below a directory has its own ACL and mode, not what the
// directory's default ACL would give it.
func TestDefaultACLIsForLater(t *testing.T) {
	d, under := dir("d"), dir("d/sub")
	d.PAXRecords = map[string]string{paxACL + "default": "user::rwx\nuser:1000:rwx\ngroup::r-x\nmask::rwx\nother::---\n"}
	f := file("d/f", "x")
	f.Mode = 0o640
	f.PAXRecords = map[string]string{paxACL + "access": "user::rw-\nuser:7:r--\ngroup::---\nmask::r--\nother::---\n"}
	again := dir("twice")
	again.PAXRecords = d.PAXRecords
	fs, _, err := unpackTo(t, Limits{}, d, under, f, file("d/plain", ""), file("d/implied/f", ""), entry{tar.Header{Name: "d/fifo", Typeflag: tar.TypeFifo, Mode: 0o600}, ""},
		again, file("twice", "replaced by a file"))
	if err != nil {
		t.Fatal(err)
	}
	wantDefault := aclOf([3]uint32{1, 7, noID}, [3]uint32{2, 7, 1000}, [3]uint32{4, 5, noID}, [3]uint32{16, 7, noID}, [3]uint32{32, 0, noID})
	if got := attr(filepath.Join(fs, "d"), aclDefault); got != wantDefault {
		t.Errorf("default: %x", got)
	}
	wantAccess := aclOf([3]uint32{1, 6, noID}, [3]uint32{2, 4, 7}, [3]uint32{4, 0, noID}, [3]uint32{16, 4, noID}, [3]uint32{32, 0, noID})
	if got := attr(filepath.Join(fs, "d/f"), aclAccess); got != wantAccess {
		t.Errorf("access: %x", got)
	}
	for _, name := range []string{"d/sub", "d/plain", "d/implied", "d/implied/f", "d/fifo", "twice"} {
		for _, kind := range []string{aclAccess, aclDefault} {
			if got := attr(filepath.Join(fs, name), kind); got != "no data available" {
				t.Errorf("%s has %s: %x", name, kind, got)
			}
		}
	}
	if st := stat(t, fs, "d/sub"); st.Mode&0o7777 != 0o755 {
		t.Errorf("sub has mode %o", st.Mode)
	}
	f.PAXRecords = map[string]string{paxACL + "access": "user:joe:rwx"}
	if _, _, err := unpackTo(t, Limits{}, d, f); !fault.Is(err, fault.Invalid) {
		t.Errorf("a name: %v", err)
	}
	f.PAXRecords[paxXattr+aclAccess] = wantAccess // the attribute counts
	if _, _, err := unpackTo(t, Limits{}, d, f); err != nil {
		t.Error(err)
	}
}

// A file that replaces a directory has its own times, and so has what is made
// anew where a directory was.
func TestReplacedDirectoryLeavesNoTimes(t *testing.T) {
	old := func(e entry) entry { e.ModTime = e.ModTime.AddDate(1000, 0, 0); return e }
	fs, _, err := unpackTo(t, Limits{}, old(dir("d")), old(dir("d/sub")), file("d", ""), dir("d"), file("d/sub", ""), old(dir("e")), file("e", ""))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"d", "d/sub", "e"} {
		if st := stat(t, fs, name); st.Mtim.Sec != 1700000000 {
			t.Errorf("%s has time %d", name, st.Mtim.Sec)
		}
	}
}
