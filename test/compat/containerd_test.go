package compat

import (
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/image/registrytest"
	"fief/internal/launch/launchtest"
	"fief/internal/testenv"
)

// containerdDir is where containerd's programs are: those of the machine, or of the
// package that test/deps.sh has unpacked, so that no daemon is started by it.
func containerdDir(t *testing.T) string {
	t.Helper()
	if path, err := exec.LookPath("containerd"); err == nil {
		return filepath.Dir(path)
	}
	dir := filepath.Join(testenv.Root(), "bin/containerd/usr/bin")
	if _, err := os.Stat(dir); err != nil {
		t.Skip("tool: no containerd")
	}
	return dir
}

// containerd opens a daemon of its own and an image "bb" in a namespace of its own.
func containerd(t *testing.T, runtime string) session {
	t.Helper()
	programs := containerdDir(t)
	dir, group := place(t)
	mountRun(t)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "c.sock")
	write(t, filepath.Join(dir, "c.toml"), `version = 2
root = "`+dir+`/root"
state = "`+dir+`/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt"]
[grpc]
address = "`+socket+`"
`)
	layer := registrytest.Gzipped(testenv.BusyboxTar(t))
	layer.Docker, layer.Architecture = true, goruntime.GOARCH
	layer.Config = map[string]any{"Cmd": []string{"sh"}, "Env": []string{"PATH=/bin:/usr/bin"}}
	archive := filepath.Join(dir, "image.tar")
	if err := os.WriteFile(archive, layer.DockerArchive("docker.io/library/bb:latest"), 0o600); err != nil {
		t.Fatal(err)
	}
	rootfs(t, filepath.Join(dir, "rootfs"))
	config := launchtest.Spec("cat", "/proc/self/uid_map")
	config.Root = &specs.Root{Path: filepath.Join(dir, "rootfs")}
	save(t, filepath.Join(dir, "config.json"), config)
	functions := write(t, filepath.Join(dir, "functions"), `C="ctr -a `+socket+` -n `+group+`" I=docker.io/library/bb:latest R="--runc-binary `+runtime+`"
ctr() { command $C "$@"; }
up() { containerd -c c.toml >>log 2>&1 & echo $! >pid; for i in $(seq 600); do ctr version >/dev/null 2>&1 && return; sleep 0.1; done; cat log; return 1; }
down() { kill -9 $(cat pid); while kill -0 $(cat pid) 2>/dev/null; do sleep 0.05; done; }
`)
	s := session{dir, append(os.Environ(), "BASH_ENV="+functions, "PATH="+programs+":"+os.Getenv("PATH"))}
	t.Cleanup(func() {
		s.do("for c in $(ctr c ls -q); do ctr tasks kill -s KILL -a $c; ctr tasks rm -f $c; ctr c rm $c; done; kill $(cat pid); while kill -0 $(cat pid) 2>/dev/null; do sleep 0.05; done")
	})
	if out, code := s.do("up && ctr images import " + archive); code != 0 {
		t.Fatal(out)
	}
	return s
}

// mountRun puts a file system of the test's own over the directory that shims have
// their sockets in, which no configuration names.
func mountRun(t *testing.T) {
	t.Helper()
	const run = "/run/containerd"
	made := os.Mkdir(run, 0o711) == nil
	if err := unix.Mount("tmpfs", run, "tmpfs", 0, "mode=711"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for end := time.Now().Add(time.Minute); unix.Unmount(run, 0) == syscall.EBUSY && time.Now().Before(end); {
			time.Sleep(50 * time.Millisecond) // the last shim is on its way out
		}
		if made {
			os.Remove(run)
		}
	})
}

func TestContainerd(t *testing.T) {
	compare(t, containerd, []step{
		{line: "ctr run $R --rm $I one echo hello", want: "^hello\n$"},
		{line: "ctr run $R --rm $I one sh -c 'exit 5'", code: 5},
		{line: "ctr run $R --rm $I one nosuch", want: "OCI runtime create failed: .*executable file not found in .PATH", code: 1},
		// With --uidmap this ctr forgets --runc-binary: a whole configuration has the namespace.
		{line: "ctr run $R --rm --config $PWD/config.json two", want: `^ +0 +\d{6,} +65536\n$`},
		{line: "ctr run $R -d --memory-limit 33554432 $I t sh -c 'trap \"exit 0\" TERM; while :; do sleep 0.1; done'"},
		{line: "ctr tasks ls", want: `t +\d+ +RUNNING`},
		{line: "ctr tasks exec --exec-id e1 t echo inside", want: "^inside\n$"},
		{line: "ctr tasks exec --exec-id e2 t sh -c 'exit 4'", code: 4},
		{line: "ctr tasks exec --exec-id e3 t nosuch", want: "OCI runtime exec failed: .*executable file not found in .PATH", code: 1},
		{line: `script -qec "$C tasks exec -t --exec-id e4 t sh -c 'tty; echo pty'" /dev/null </dev/null`, want: "/dev/pts/.*pty"},
		{line: "ctr tasks ps t", want: `PID +INFO\n\d+ `},
		{line: "ctr tasks metrics t", want: "33554432"},
		{line: "ctr tasks pause t && ctr tasks ls", want: `t +\d+ +PAUSED`},
		{line: "ctr tasks resume t && ctr tasks ls", want: `t +\d+ +RUNNING`},
		{line: "ctr tasks checkpoint t", want: "did not terminate successfully", code: 1},
		{line: "ctr tasks ls", want: `t +\d+ +RUNNING`},
		{line: "down && up && ctr tasks ls && ctr tasks exec --exec-id e5 t echo after", want: `t +\d+ +RUNNING.*after`},
		{line: "ctr tasks exec --exec-id e6 t sh -c 'exec tail /dev/zero'", code: 137},
		{line: "ctr tasks kill -s TERM t"},
		{line: "ctr tasks ls", want: `t +\d+ +STOPPED`, repeat: true},
		{line: "ctr tasks kill -s TERM t", want: "(?i)not found|finished", code: 1},
		{line: "ctr tasks rm t && ctr c rm t"},
		{line: "ctr run $R -d $I k sh -c 'sleep 1000 & sleep 1000' && ctr tasks kill -s KILL -a k"},
		{line: "ctr tasks ls", want: `k +\d+ +STOPPED`, repeat: true},
		{line: "ctr tasks rm k; ctr c rm k; ctr run $R -d $I f sleep 1000 && ctr tasks rm -f f; ctr tasks ls -q", want: "task k exit.*task f exit[^\n]*\n$"},
	})
}

// TestContainerdOOM: a killed process is an event, which the shim sees at the
// container's group.
func TestContainerdOOM(t *testing.T) {
	compare(t, containerd, []step{
		{line: "ctr run $R -d --memory-limit 33554432 $I t sleep 1000"},
		{line: `ctr events >events & e=$!; sleep 3; ctr tasks exec --exec-id x t sh -c 'exec tail /dev/zero'
for i in $(seq 600); do grep -q /tasks/oom events && break; sleep 0.1; done; kill $e; cat events`, want: "/tasks/oom"},
		{line: "ctr tasks rm -f t; ctr c rm t", want: "137"},
	})
}
