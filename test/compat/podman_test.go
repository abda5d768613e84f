package compat

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fief/internal/testenv"
)

// podman opens podman with a store, a configuration and a user of subordinate ids
// of its own, and an image "bb".
func podman(t *testing.T, runtime string) session {
	t.Helper()
	if _, err := exec.LookPath("podman"); err != nil {
		t.Skip("tool: no podman")
	}
	dir, group := place(t)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	store := write(t, filepath.Join(dir, "storage.conf"), "[storage]\ndriver = \"vfs\"\nrunroot = \""+dir+"/run\"\ngraphroot = \""+dir+"/root\"\n")
	// The limit of open files that podman asks for by default is above what may be
	// had without CAP_SYS_RESOURCE.
	conf := write(t, filepath.Join(dir, "containers.conf"), `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
netns = "none"
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
infra_image = "localhost/bb"
runtime_supports_nocgroup = ["`+filepath.Base(runtime)+`"]
[engine.runtimes]
`+filepath.Base(runtime)+` = ["`+runtime+`"]
`)
	image := filepath.Join(dir, "image.tar")
	if err := os.WriteFile(image, testenv.BusyboxTar(t), 0o600); err != nil {
		t.Fatal(err)
	}
	ids := write(t, filepath.Join(dir, "ids"), "containers:2000000:1000000\n")
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		if _, err := os.Stat(file); err != nil {
			continue // --userns=auto fails then, with every runtime
		}
		if err := unix.Mount(ids, file, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(file, unix.MNT_DETACH) })
	}
	leaveNetwork(t)
	p := "podman --root " + dir + "/root --runroot " + dir + "/run --tmpdir " + dir + "/tmp --cgroup-manager cgroupfs --runtime " + filepath.Base(runtime) +
		" --runtime-flag root=" + dir + "/state"
	functions := write(t, filepath.Join(dir, "functions"), "podman() { command "+p+" \"$@\"; }\nP='"+p+"'\nG=/"+group+"\n"+
		"run() { podman run --cgroup-parent $G \"$@\"; }\n")
	s := session{dir, append(os.Environ(), "CONTAINERS_CONF="+conf, "CONTAINERS_STORAGE_CONF="+store, "BASH_ENV="+functions, "TMPDIR="+dir)}
	if out, code := s.do("podman import -c 'ENV PATH=/bin' -c 'CMD [\"sleep\",\"1000\"]' " + image + " bb"); code != 0 {
		t.Fatal(out)
	}
	t.Cleanup(func() { s.do("podman pod rm -f -t 0 -a; podman rm -f -t 0 -a") })
	return s
}

func TestPodman(t *testing.T) {
	compare(t, podman, []step{
		{line: "run --rm bb echo hi", want: "^hi\n$"},
		{line: "run --rm bb sh -c 'exit 3'", code: 3},
		{line: "run --rm bb nosuch", want: "executable file not found in .PATH", code: 127},
		{line: "run --rm --uidmap 0:300000:65536 bb cat /proc/self/uid_map", want: `^ +0 +300000 +65536\n$`},
		{line: "run --rm --userns=auto bb cat /proc/self/uid_map", want: `^ +0 +2000000 +1024\n$`},
		{line: "run --rm --read-only bb sh -c 'touch /x; touch /tmp/y && echo written'", want: "Read-only.*written"},
		{line: "mkdir v; echo told > v/f; run --rm -v $PWD/v:/v:ro -v named:/n bb sh -c 'cat /v/f; touch /v/x; echo n > /n/x; cat /n/x'", want: "told.*Read-only.*n"},
		{line: "test $(run --rm --network host bb readlink /proc/self/ns/net) = $(readlink /proc/self/ns/net)"},
		{line: "run --rm --network none bb ip -o link | wc -l", want: "^1\n$"},
		{line: "run --rm --pid host bb readlink /proc/self/ns/pid; readlink /proc/self/ns/pid", want: `^(pid:\S+)\n(pid:\S+)\n$`},
		{line: "run --rm --cgroupns host bb cat /proc/self/cgroup", want: "/fief-compat-"},
		{line: "podman run --rm --cgroups=disabled --cap-drop MKNOD bb echo none", want: "^none\n$"},
		{line: `script -qec "$P run --cgroup-parent $G --rm -it bb sh -c 'tty; exit 4'" /dev/null </dev/null`, want: "/dev/pts/0", code: 4},
		{line: "run -d --name c --memory 64m --pids-limit 60 --health-cmd 'echo fine' --health-interval disable bb sh -c 'trap \"exit 6\" TERM; echo started; while :; do sleep 0.1; done'"},
		{line: "podman logs c", want: "^started\n$", repeat: true},
		{line: "podman exec c echo inside", want: "^inside\n$"},
		{line: "podman exec --user 1000:1000 -w /tmp -e A=b c sh -c 'id -u; pwd; echo $A; exit 7'", want: "^1000\n/tmp\nb\n$", code: 7},
		{line: "podman exec c nosuch", want: "executable file not found in .PATH", code: 127},
		{line: "podman exec c /etc", want: "permission denied", code: 126},
		{line: `script -qec "$P exec -it c sh -c 'tty; echo pty'" /dev/null </dev/null`, want: "/dev/pts/.*pty"},
		{line: "echo passed > f; podman exec --preserve-fds 1 c sh -c 'cat <&3' 3<f", want: "^passed\n$"},
		{line: "podman top c", want: "sh -c"},
		{line: "podman stats --no-stream --format '{{.MemUsage}}' c", want: "/ 67.11MB"},
		{line: "podman update --memory 128m c; cat /sys/fs/cgroup/memory$G/libpod-*/memory.limit_in_bytes /sys/fs/cgroup$G/libpod-*/memory.max 2>/dev/null; :", want: "\n134217728\n"},
		{line: "podman healthcheck run c && podman inspect --format '{{.State.Health.Status}} {{.State.Status}}' c", want: "^healthy running\n$"},
		{line: "podman pause c && podman ps -a --format '{{.Status}}'", want: "Paused"},
		{line: "podman unpause c && podman ps --format '{{.Status}}'", want: "Up"},
		{line: "podman container checkpoint c", want: "(?i)checkpoint", code: 125},
		{line: "podman stop -t 10 c && podman inspect --format '{{.State.Status}} {{.State.ExitCode}}' c", want: "exited 6\n$"},
		{line: "podman start c && podman kill c"},
		{line: "podman inspect --format '{{.State.Status}} {{.State.ExitCode}}' c", want: "^exited 137\n$", repeat: true},
		{line: "podman rm -f c; podman ps -aq", want: "^c\n$"},
	})
}

// TestPodmanPod: the containers of a pod share namespaces, and only those.
func TestPodmanPod(t *testing.T) {
	compare(t, podman, []step{
		{line: "podman pod create --name p --cgroup-parent $G --share net,ipc,uts,pid --hostname together --infra-command 'sleep 1000'"},
		{line: "podman run -d --pod p --name a bb sh -c 'echo A > /dev/shm/x; sleep 1000' && podman run -d --pod p --name b bb sleep 1000"},
		{line: "podman exec b sh -c 'hostname; cat /dev/shm/x; readlink /proc/self/ns/net'; podman exec a readlink /proc/self/ns/net", want: `^together\nA\n(\S+)\n\S+\n$`, repeat: true},
		{line: "test $(podman exec a readlink /proc/self/ns/pid) = $(podman exec b readlink /proc/self/ns/pid)"},
		{line: "podman kill a && podman exec b echo lives", want: "lives"},
		{line: "podman inspect --format '{{.State.Status}}' a b", want: "^exited\nrunning\n$", repeat: true},
		{line: "podman pod rm -f -t 0 p && podman ps -aq", want: `^\w+\n$`},
		{line: "podman pod create --name u --cgroup-parent $G --userns auto --infra-command 'sleep 1000' && podman run -d --pod u --name ua bb sleep 1000"},
		{line: "podman exec ua cat /proc/self/uid_map", want: `^ +0 +2000000 +1024\n$`},
		{line: "podman pod rm -f -t 0 u"},
		{line: `cat > k.yaml <<Y
apiVersion: v1
kind: Pod
metadata: {name: kube}
spec:
  containers:
  - {name: one, image: localhost/bb, imagePullPolicy: Never, command: [sleep, "1000"], securityContext: {readOnlyRootFilesystem: true}}
  - {name: two, image: localhost/bb, imagePullPolicy: Never, command: [sleep, "1000"]}
Y
podman play kube k.yaml && podman exec kube-two echo of a pod`, want: "of a pod\n$"},
		{line: "podman play kube --down k.yaml; rmdir /sys/fs/cgroup/*/libpod_parent /sys/fs/cgroup/libpod_parent 2>/dev/null; :", want: "removed"},
	})
}

// leaveNetwork removes at the end what podman makes for the network of `play
// kube` and keeps: a bridge, and the mount below which it names namespaces.
func leaveNetwork(t *testing.T) {
	const names, bridge = "/run/netns", "cni-podman1"
	before, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(before), " "+names+" ") {
		return
	}
	t.Cleanup(func() {
		unix.Unmount(names, unix.MNT_DETACH)
		exec.Command("ip", "link", "delete", bridge).Run() // there is none unless play kube ran
	})
}
