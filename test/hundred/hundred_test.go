// Package hundred takes the program off docs/in-100-lines.md, builds it and
// runs it, so that the page cannot rot.
package hundred

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const busybox = "/bin/busybox"

// program returns the Go code on the page.
func program(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/in-100-lines.md")
	if err != nil {
		t.Fatal(err)
	}
	_, code, ok := strings.Cut(string(b), "```go\n")
	code, _, end := strings.Cut(code, "```\n")
	if !ok || !end {
		t.Fatal("no program on the page")
	}
	return code
}

func build(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(".", "build-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(program(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(t.TempDir(), "hundred")
	cmd := exec.Command("go", "build", "-o", bin, "./"+dir)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the page does not build: %v\n%s", err, out)
	}
	return bin
}

// image makes a directory that holds a static busybox and a file of id 33.
func image(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"bin", "proc"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(busybox)
	if err != nil {
		t.Skip("tool: no static busybox: " + err.Error())
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/sh"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "www"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(dir, "www"), 33, 33); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestThePageIsAContainer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("root: the page needs root")
	}
	t.Setenv("TMPDIR", t.TempDir())
	cmd := exec.Command(build(t), image(t), "/bin/sh", "-c",
		`echo pid $$; cat /proc/self/uid_map; : >/new; stat -c '%u %n' /www /new /bin/sh; exit 7`)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if cmd.ProcessState.ExitCode() != 7 {
		t.Fatalf("%v\n%s%s", err, out.String(), errs.String())
	}
	for _, want := range []string{"pid 1\n", "33 /www\n", "0 /new\n", "0 /bin/sh\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("missing %q in:\n%s", want, out.String())
		}
	}
	if f := strings.Fields(strings.Split(out.String(), "\n")[1]); strings.Join(f, " ") != "0 100000 65536" {
		t.Errorf("uid_map is %v", f)
	}
	_, written, _ := strings.Cut(errs.String(), "written: ")
	for path := range strings.FieldsSeq(written) {
		checkOwner(t, path)
	}
	if !strings.Contains(written, "/new") {
		t.Errorf("nothing was written: %s", errs.String())
	}
}

// checkOwner wants what container root wrote to be owned by 0 on disk.
func checkOwner(t *testing.T, path string) {
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Uid != 0 {
		t.Errorf("%s is owned by %d on disk", path, st.Uid)
	}
}
