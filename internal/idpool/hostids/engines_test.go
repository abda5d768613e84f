package hostids

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// storageText is what podman 4.3.1 wrote for containers made with --uidmap
// 0:700000:1000 --uidmap 1000:1000:1 --gidmap 0:800000:1001, and without.
const storageText = `[{"id":"0fcca68763fa2919cb8b4971df212bd135d75209e5b02aff0609ff14535d08bd","names":["web"],"image":"d952","layer":"04c1",` +
	`"metadata":"{\"name\":\"web\"}","created":"2026-11-22T11:53:17.97632444Z",` +
	`"uidmap":[{"container_id":0,"host_id":700000,"size":1000},{"container_id":1000,"host_id":1000,"size":1}],` +
	`"gidmap":[{"container_id":0,"host_id":800000,"size":1001}],"flags":{"MountLabel":"","ProcessLabel":""}},` +
	`{"id":"a8ad5b1350cba07af9e0724139c039c8373cfd2ebdc654a51d15c6777cf2c22e","names":["plain"],"image":"d952","layer":"35c1","flags":{}}]`

func TestContainersStorage(t *testing.T) {
	f := newHost(t)
	write(t, f.below(containersRoot+"/overlay-containers/containers.json"), storageText)
	write(t, f.below(containersRoot+"/vfs-containers/volatile-containers.json"), `[{"id":"0123456789abcdef","uidmap":[{"container_id":0,"host_id":7,"size":1}]}]`)
	write(t, f.below(containersRun+"/overlay-containers/volatile-containers.json"), `[{"id":"9","gidmap":[{"container_id":0,"host_id":9,"size":1}]}]`)
	write(t, f.below(containersRoot+"/overlay-images/containers.json"), storageText)
	const path = "/var/lib/containers/storage/"
	want(t, shown(f, facts(t, f).Claims, "engine"), "7-8 uid engine podman, container 0123456789ab "+path+"vfs-containers/volatile-containers.json\n"+
		"700000-701000 uid engine podman, container web "+path+"overlay-containers/containers.json\n"+
		"800000-801001 gid engine podman, container web "+path+"overlay-containers/containers.json\n"+
		"9-10 gid engine podman, container 9 /run/containers/storage/overlay-containers/volatile-containers.json\n")
}

// TestRealPodman reads what the machine's Podman writes.
func TestRealPodman(t *testing.T) {
	if _, err := exec.LookPath("podman"); err != nil || os.Geteuid() != 0 {
		t.Skip("tool: no podman")
	}
	f := newHost(t)
	run, err := os.MkdirTemp("", "podman") // a runroot may have 50 characters
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(run)
	podman := func(args ...string) {
		t.Helper()
		// It keeps a cache in /var/lib whatever it is told.
		words := []string{"--mount", "--propagation", "private", "sh", "-c", `mount -t tmpfs tmpfs /var/lib && exec podman "$@"`, "podman", "--root", f.below(containersRoot), "--runroot", run, "--tmpdir", run, "--storage-driver", "vfs"}
		if out, err := exec.Command("unshare", append(words, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("podman %s: %v\n%s", args, err, out)
		}
	}
	archive := filepath.Join(t.TempDir(), "image.tar")
	write(t, archive, strings.Repeat("\x00", 1024)) // an archive without files
	podman("import", archive, "img")
	podman("create", "--name", "web", "--network", "none", "--uidmap", "0:700000:1000", "--uidmap", "1000:1000:1", "--gidmap", "0:800000:1001", "img", "true")
	podman("create", "--name", "gone", "--rm", "--network", "none", "--uidmap", "0:900000:10", "img", "true")
	got := shown(f, facts(t, f).Claims, "engine")
	for _, line := range []string{"700000-701000 uid engine podman, container web ", "800000-801001 gid engine podman, container web ",
		"900000-900010 gid engine podman, container gone ", "900000-900010 uid engine podman, container gone "} {
		if !strings.Contains(got, line) {
			t.Errorf("no %s in\n%s", line, got)
		}
	}
	if n := strings.Count(got, "\n"); n != 4 {
		t.Errorf("%d claims:\n%s", n, got)
	}
}

func TestContainersStorageElsewhere(t *testing.T) {
	f := newHost(t)
	write(t, f.below("/usr/share/containers/storage.conf"), "graphroot = \"/wrong\"\n")
	write(t, f.below("/etc/containers/storage.conf"), "[storage]\n# graphroot = \"/no\"\ngraphroot = \"/srv/podman\" # moved\nrunroot='/srv/podman'\ndriver = \"overlay\"\n")
	write(t, f.below("/srv/podman/overlay-containers/containers.json"), storageText)
	if got := strings.Count(shown(f, facts(t, f).Claims, "engine"), "\n"); got != 2 {
		t.Errorf("%d claims", got)
	}
}

func TestKubelet(t *testing.T) {
	f := newHost(t)
	if got := facts(t, f); len(got.Warnings) != 0 {
		t.Errorf("no kubelet: %q", got.Warnings)
	}
	const pods = "/var/lib/kubelet/pods/"
	write(t, f.below(pods+"u-1/userns"), `{"uidMappings":[{"hostId":131072,"containerId":0,"length":65536}],"gidMappings":[{"hostId":131072,"containerId":0,"length":65536}]}`)
	write(t, f.below(pods+"u-2/etc-hosts"), "")
	got := facts(t, f)
	want(t, shown(f, got.Claims, "engine"), "131072-196608 gid engine kubelet, pod u-1 "+pods+"u-1/userns\n131072-196608 uid engine kubelet, pod u-1 "+pods+"u-1/userns\n")
	if len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "kubelet:FIRST:COUNT") {
		t.Errorf("%q", got.Warnings)
	}
	write(t, f.SubUID, "kubelet:65536:7208960\n")
	write(t, f.SubGID, "kubelet:65536:7208960\n")
	got = facts(t, f)
	if len(got.Warnings) != 0 || !strings.Contains(show(got.Claims), "65536-7274496 uid subid kubelet") {
		t.Errorf("%q\n%s", got.Warnings, show(got.Claims))
	}
}

func TestDocker(t *testing.T) {
	f := newHost(t)
	dir := func(path string) {
		if err := os.MkdirAll(f.below(path), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"231072.231073", "0.0", "overlay2", "1.2.3", "9.x", "-1.5", "volumes"} {
		dir("/var/lib/docker/" + d)
	}
	write(t, f.below("/var/lib/docker/5.5"), "a file")
	want(t, shown(f, facts(t, f).Claims, "engine"), "231072-296608 uid engine docker /var/lib/docker/231072.231073\n231073-296609 gid engine docker /var/lib/docker/231072.231073\n")
	write(t, f.below("/etc/docker/daemon.json"), `{"data-root": "/srv/docker", "userns-remap": "default"}`)
	dir("/srv/docker/300000.300000")
	want(t, shown(f, facts(t, f).Claims, "engine"), "300000-365536 gid engine docker /srv/docker/300000.300000\n300000-365536 uid engine docker /srv/docker/300000.300000\n")
}

func TestLXC(t *testing.T) {
	f := newHost(t)
	write(t, f.below("/var/lib/lxc/web/config"), "lxc.include = /usr/share/lxc/config/common.conf\nlxc.idmap = u 0 100000 65536\nlxc.idmap=g 0 200000 65536\n"+
		"#lxc.idmap = u 0 1 1\nlxc.idmap = u 65536 65536 1\nlxc.idmap = x 0 7 1\nlxc.idmap = u 0\nlxc.id_map = b 70000 9 1\n")
	write(t, f.below("/var/lib/lxc/lxc-monitord.log"), "")
	const path = "lxc, container web /var/lib/lxc/web/config"
	want(t, shown(f, facts(t, f).Claims, "engine"), "100000-165536 uid engine "+path+":2\n200000-265536 gid engine "+path+":3\n9-10 uid+gid engine "+path+":8\n")
}

func TestIncusAndMachines(t *testing.T) {
	f := newHost(t)
	for _, d := range []string{"/var/lib/incus", "/var/lib/machines/small", "/var/lib/machines/own"} {
		if err := os.MkdirAll(f.below(d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, f.below("/var/lib/machines/image.raw"), "")
	claims := "1000000-1001000000 uid+gid engine incus /var/lib/incus\n"
	if os.Geteuid() == 0 {
		for _, name := range []string{"own", "image.raw"} {
			if err := os.Lchown(f.below("/var/lib/machines/"+name), 720896+33, 720896); err != nil {
				t.Fatal(err)
			}
		}
		claims += "720896-786432 uid+gid engine systemd-nspawn, machine own /var/lib/machines/own\n"
	}
	want(t, shown(f, facts(t, f).Claims, "engine"), claims)
	write(t, f.SubUID, "root:1000000:65536\n")
	if got := show(facts(t, f).Claims); strings.Contains(got, "incus") {
		t.Errorf("root has a line, and incus its default:\n%s", got)
	}
}

// TestDamagedStateStopsNothing puts everything that is not a record where
// engines have records.
func TestDamagedStateStopsNothing(t *testing.T) {
	paths := []string{containersRoot + "/overlay-containers/containers.json", kubeletPods + "/p/userns", lxcRoot + "/c/config", "/etc/docker/daemon.json"}
	for name, spoil := range map[string]func(path string) error{
		"pipe":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"loop":      func(path string) error { return os.Symlink(path, path) },
		"link":      func(path string) error { return os.Symlink("/dev/zero", path) },
		"garbage":   func(path string) error { return os.WriteFile(path, []byte("[{\"uidmap\": -"), 0o600) },
		"endless": func(path string) error {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				return err
			}
			return os.Truncate(path, 1<<40)
		},
	} {
		f := newHost(t)
		for _, path := range paths {
			if err := os.MkdirAll(filepath.Dir(f.below(path)), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := spoil(f.below(path)); err != nil {
				t.Fatal(err)
			}
		}
		got := facts(t, f)
		if claims := shown(f, got.Claims, "engine"); claims != "" {
			t.Errorf("%s: claims\n%s", name, claims)
		}
		told := strings.Join(got.Warnings, "\n")
		for _, path := range paths {
			if !strings.Contains(told, path) && !(name == "garbage" && strings.HasSuffix(path, "config")) {
				t.Errorf("%s: nothing is said of %s:\n%s", name, path, told)
			}
		}
	}
}
