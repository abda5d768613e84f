package check

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fief/internal/words/record"
)

// hostOf makes the files of a host.
func hostOf(t *testing.T, files map[string]string) Options {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	return Options{SubUID: at("subuid"), SubGID: at("subgid"), Passwd: at("passwd"), NSSwitch: at("nsswitch.conf"), First: 524288, Last: 1878982655}
}

func TestIDs(t *testing.T) {
	o := hostOf(t, map[string]string{
		"subuid": "# ours\nalice:100000:65536\nbob:165000:65536\nalice:100000:1\n\nbroken:1\nnegative:-1:5\nempty:1:0\nlong:4294967290:100\n" +
			"big:2147483000:65536\neve:500:1000\n",
		"subgid": "alice:100000:65536\n",
		"passwd": "root:x:0:0::/:\nalice:x:1000:1000::/:\ncarol:x:777:777::/:\n",
	})
	checks := ids(o)
	file := find(t, checks, o.SubUID)
	for _, want := range []string{"subuid:6: not NAME:FIRST:COUNT", "subuid:7: not a number", "subuid:8: a range of no ids", "subuid:9: it goes past"} {
		if file.State != record.CheckWarn || !strings.Contains(file.Found, want) {
			t.Errorf("%q is not in %+v", want, file)
		}
	}
	if c := find(t, checks, "users that share"); c.State != record.CheckWarn || !strings.Contains(c.Found, "bob") || !strings.Contains(c.Found, "share 165000–165535") || strings.Contains(c.Found, ";") {
		t.Errorf("%+v", c)
	}
	if c := find(t, checks, "ids from 2147483648"); !strings.Contains(c.Found, "big") {
		t.Errorf("%+v", c)
	}
	if c := find(t, checks, "users of the host in"); !strings.Contains(c.Found, "carol (uid 777) is in a range of eve") || !strings.Contains(c.Found, "alice (uid 1000)") {
		t.Errorf("%+v", c)
	}
	if c := find(t, checks, o.SubGID); c.State != record.CheckOK || c.Found != "1 ranges" {
		t.Errorf("%+v", c)
	}
}

func TestRemapLines(t *testing.T) {
	o := hostOf(t, map[string]string{"subuid": "alice:100000:65536\n1001:200000:65536\n", "subgid": "staff:100000:65536\n", "passwd": "bob:x:1001:1::/:\n"})
	for remap, want := range map[string]string{
		"alice": "ok fail", "alice:staff": "ok ok", "bob:staff": "ok ok", "1001:staff": "ok ok", "carol": "fail fail", "default": "info info", "": "",
	} {
		o.Remap = remap
		var got []string
		for _, c := range ids(o) {
			if strings.HasPrefix(c.Name, "userns-remap") {
				got = append(got, string(c.State))
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, not %q", remap, got, want)
		}
	}
}

func TestFreeRanges(t *testing.T) {
	for name, c := range map[string]struct {
		subuid, subgid, found string
		state                 record.CheckState
	}{
		"none":     {"", "", "28663 not", record.CheckOK},
		"one each": {"a:524288:65536\n", "b:589824:1\n", "28661 not", record.CheckOK},
		"all":      {"a:1:4294967293\n", "", "0 not", record.CheckFail},
		"own":      {"fief:655360:131072\n", "fief:655360:131072\n", "2 not", record.CheckWarn},
		"half own": {"fief:655360:131072\n", "fief:720896:65536\n", "1 not", record.CheckWarn},
		"uid only": {"fief:655360:131072\n", "", "0 not", record.CheckFail},
		"no start": {"fief:655361:65536\n", "fief:655361:65536\n", "0 not", record.CheckFail},
	} {
		o := hostOf(t, map[string]string{"subuid": c.subuid, "subgid": c.subgid})
		if got := find(t, ids(o), "ranges of 65536"); got.State != c.state || !strings.HasPrefix(got.Found, c.found) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if c := find(t, ids(hostOf(t, nil)), "/"); c.State != record.CheckInfo {
		t.Errorf("no files: %+v", c)
	}
}

func TestSubidSource(t *testing.T) {
	for text, want := range map[string]string{
		"": "files", "passwd: sss\n# subid: sss\n": "files", " subid:\tfiles  sss # us\n": "files sss", "subid: sss\n": "",
	} {
		c := subidSource(hostOf(t, map[string]string{"nsswitch.conf": text}))
		if want != "" && (c.State != record.CheckOK || c.Found != want) || want == "" && (c.State == record.CheckOK || c.Why == "" || c.Fix == "") {
			t.Errorf("%q: %+v", text, c)
		}
	}
}

func FuzzParseSub(f *testing.F) {
	f.Add("alice:100000:65536\n")
	f.Add("a:4294967295:1\n:::\n#\n\x00:1:1")
	f.Fuzz(func(t *testing.T, text string) {
		lines, _ := parseSub("f", text)
		for _, l := range lines {
			if l.owner == "" || l.from >= l.to || l.to > 1<<32-1 {
				t.Errorf("%q has %+v", text, l)
			}
		}
		overlaps("f", lines)
	})
}
