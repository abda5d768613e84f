package plan

import (
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"fief/internal/words/fault"
)

func sample() *Plan {
	score := -5
	return &Plan{
		Clone: Clone{Flags: 7, PIDSpace: 1, Cgroup: 2, Owner: 100000, UIDMap: "0 1 2\n", GIDMap: "0 3 4\n",
			Rlimits: []Rlimit{{7, 10, 20}}, OOMScoreAdj: &score, StdioOwned: true, StdioUID: 5, StdioGID: 6},
		Files: []string{"pidfd", "cgroup", "stdin"},
		Slots: []string{"pidfd", "cgroup", "stdin", "x", ReportName},
		Steps: []Step{
			{Verb: "clone", Object: "all"}, {Verb: "map ids"}, {Verb: "limit"},
			{Verb: "do", Object: "it", Why: "it must be done", Ops: []Op{
				{Nr: 39, Name: "getpid", Save: 4, Skip: 1, Ignore: [MaxIgnore]syscall.Errno{syscall.ENOENT}},
				{Kind: Patch, Args: []Arg{Int(4), Bytes([]byte("12345678"), "eight").Plus(4)}},
				{Nr: 1, Name: "write", Args: []Arg{In(4), Strings([]string{"a", "b"}), Scratch(StampName, 32, 16), Int(-1)}},
			}},
			{Kind: Exec, Verb: "exec", Object: "prog"},
			{Kind: Chdir, Verb: "chdir", Object: "/w"},
		},
	}
}

// aligned copies b to memory aligned to 8.
func aligned(b []byte) []byte {
	w := make([]uint64, len(b)/8+1)
	out := unsafe.Slice((*byte)(unsafe.Pointer(&w[0])), len(b))
	copy(out, b)
	return out
}

func TestEncodeDecode(t *testing.T) {
	b, err := sample().Encode()
	if err != nil {
		t.Fatal(err)
	}
	d, err := Decode(aligned(b))
	if err != nil {
		t.Fatal(err)
	}
	if d.Files != 3 || d.Slots != 5 || d.Ops != 3 || d.Flags != 7 || d.Cgroup != 2 || d.Owner != 100000 || d.Stdio != [3]uint32{3, 0, 0} ||
		d.Report != 5 || d.OOM != -5 || d.Bools != HasOOM|OwnsStdio || d.StdioUID != 5 || d.StdioGID != 6 || d.Stamps != 2 {
		t.Errorf("%+v", *d.Header)
	}
	if string(d.UIDMap) != "0 1 2\n" || string(d.GIDMap) != "0 3 4\n" || d.RlimitList[0] != (RawRlimit{7, 10, 20}) || d.PIDSpace != 1 {
		t.Errorf("%+v", d)
	}
	if o := d.OpList[0]; o.Nr != 39 || o.Save != 4 || o.Skip != 1 || o.Ignore[0] != uint8(syscall.ENOENT) || o.Step != 3 {
		t.Errorf("%+v", o)
	}
	if o := d.OpList[2]; o.Slots != 1 || o.Args[0] != 4 || o.Args[2] != d.StampsAt+16 {
		t.Errorf("%+v", o)
	}
	if o := d.OpList[2]; o.Addresses != 6 || o.Signed != 8 || int32(o.Args[3]) != -1 {
		t.Errorf("%+v", o)
	}
	if len(d.RelocList) != 2 { // the strings
		t.Errorf("relocations: %v", d.RelocList)
	}
}

func TestEncodeRefusals(t *testing.T) {
	p := sample()
	p.Steps[3].Ops[0].Skip = 3
	if _, err := p.Encode(); !fault.Is(err, fault.Internal) {
		t.Error(err)
	}
	p = sample()
	p.Steps[3].Ops[2].Args[1] = Str(strings.Repeat("x", MaxSize))
	if _, err := p.Encode(); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

// FuzzDecode: whatever a peer sends, Decode either refuses it or returns views
// that lie inside.
func FuzzDecode(f *testing.F) {
	b, err := sample().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:headerSize])
	f.Add([]byte("fplan"))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = aligned(b)
		d, err := Decode(b)
		if err != nil {
			if !fault.Is(err, fault.Corrupt) {
				t.Error(err)
			}
			return
		}
		sum := 0
		for _, c := range append(d.UIDMap, d.GIDMap...) {
			sum += int(c)
		}
		for _, o := range d.OpList {
			if int(o.Skip) >= len(d.OpList) || uint32(o.Save) > d.Slots {
				t.Error("bad operation accepted")
			}
		}
		for _, r := range d.RelocList {
			sum += int(b[r+7])
		}
		_ = sum
	})
}

func TestExplain(t *testing.T) {
	p := sample()
	for _, c := range []struct {
		f     Failure
		class fault.Class
		code  int
		text  string
	}{
		{Failure{4, 0, syscall.ENOENT}, fault.Invalid, 127, `exec: "prog": executable file not found in $PATH`},
		{Failure{4, 0, syscall.EACCES}, fault.Invalid, 126, `exec: "prog": permission denied`},
		{Failure{4, 0, syscall.ENOEXEC}, fault.Invalid, 126, `exec: "prog": exec format error`},
		{Failure{5, 0, syscall.ENOENT}, fault.Invalid, 127, `chdir to cwd ("/w") set in config.json failed: no such file or directory`},
		{Failure{3, 2, syscall.EPERM}, fault.Denied, 125, "cannot do it: write: operation not permitted"},
		{Failure{0, 0, syscall.ENOSPC}, fault.Exhausted, 125, "cannot clone all: no space left on device"},
		{Failure{3, 0, 0}, fault.Internal, 125, "cannot do it: the process was killed"},
		{Failure{99, 0, syscall.EPERM}, fault.Internal, 125, "cannot launch: unknown step 99"},
	} {
		err := p.ExplainFailure(&c.f)
		if err.Error() != c.text || err.Class != c.class || fault.ExitCodeOf(err) != c.code {
			t.Errorf("%v: %q, %s, %d", c.f, err, err.Class, fault.ExitCodeOf(err))
		}
	}
	if got := p.Explain(4, syscall.ENOENT).ExitCode; got != 127 {
		t.Error(got)
	}
}

func TestString(t *testing.T) {
	p := sample()
	if got := p.String(); !strings.Contains(got, "3   do         it") || !strings.Contains(got, "# it must be done") || strings.Contains(got, "write(") {
		t.Error(got)
	}
	for _, want := range []string{"%x = getpid()  → 2  [ENOENT]", `patch(%x, "eight"+4)`, `write(%x, {"a", "b", 0}, &stamps+16, -1)`} {
		if got := p.Listing(); !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
}
