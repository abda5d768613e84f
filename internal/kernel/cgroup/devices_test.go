package cgroup

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

func number(n int64) *int64 { return &n }

// inside runs a shell in a group and returns what it says.
func inside(t *testing.T, dir *os.File, script string) string {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return string(out)
}

// TestGuardDevices: what a rule allows can be opened or made, nothing else.
func TestGuardDevices(t *testing.T) {
	tr := tree(t)
	dir, err := tr.Create("g")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	nodes := t.TempDir()
	try := `for d in null zero full random; do
		(: <"/dev/$d") 2>/dev/null && echo -n "$d:r "
		(: >"/dev/$d") 2>/dev/null && echo -n "$d:w "
	done; mknod ` + nodes + `/a c 1 3 2>/dev/null && echo -n made; mknod ` + nodes + `/b b 7 200 2>/dev/null && echo -n disk; rm -f ` + nodes + `/*; echo`
	if got := inside(t, dir, try); !strings.Contains(got, "zero:w") || !strings.Contains(got, "disk") {
		t.Skip("root: this root cannot open or make device nodes: " + got)
	}
	err = tr.GuardDevices("g", []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		{Allow: true, Type: "c", Access: "m"},
		{Allow: true, Type: "c", Major: number(1), Access: "rw"},
		{Allow: false, Type: "c", Major: number(1), Minor: number(5), Access: "w"},
		{Allow: false, Type: "c", Major: number(1), Minor: number(8)},
		{Allow: true, Type: "c", Major: number(1), Minor: number(8), Access: "r"},
	})
	if fault.Is(err, fault.Unsupported) {
		t.Skip("kernel: " + err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, want := inside(t, dir, try), "null:r null:w zero:r full:r full:w random:r made\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := tr.GuardDevices("g", []specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Access: "m"}}); err != nil {
		t.Fatal(err)
	}
	if got, want := inside(t, dir, "mknod "+nodes+"/a c 1 3 && echo made; ( : </dev/zero ) && echo zero; true"), "made\nsh: 1: cannot open /dev/zero: Operation not permitted\n"; got != want {
		t.Errorf("after a second guard: got %q, want %q", got, want)
	}
}

func TestBadDeviceRules(t *testing.T) {
	for _, r := range []specs.LinuxDeviceCgroup{
		{Type: "x"}, {Type: "c", Access: "rx"}, {Type: "c", Major: number(-2)}, {Type: "b", Minor: number(1 << 31)},
	} {
		if _, err := deviceProgram([]specs.LinuxDeviceCgroup{r}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	if _, err := deviceProgram(make([]specs.LinuxDeviceCgroup, maxRules+1)); !fault.Is(err, fault.Invalid) {
		t.Errorf("too many: %v", err)
	}
	if err := (&Tree{}).GuardDevices("g", []specs.LinuxDeviceCgroup{{}}); !fault.Is(err, fault.Unsupported) {
		t.Error(err)
	}
	if unix.BPF_DEVCG_ACC_MKNOD != 1 || unix.BPF_DEVCG_ACC_READ != 2 || unix.BPF_DEVCG_ACC_WRITE != 4 {
		t.Error("the bits of an access")
	}
}
