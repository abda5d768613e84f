package volume

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"fief/internal/kernel/quota"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// writes has a user who is not root, whom the kernel holds to quotas, write a file of
// so many MiB, and returns what the shell said.
func writes(t *testing.T, volume, file, mib string) string {
	t.Helper()
	dir, err := os.Open(volume) // the way to it is root's alone
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command("/bin/sh", "-c", "head -c "+mib+"M /dev/zero >/proc/self/fd/3/"+file)
	cmd.ExtraFiles = []*os.File{dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	out, err := cmd.CombinedOutput()
	if err == nil {
		return ""
	}
	return string(out)
}

// size= holds whoever writes into a volume to it, and nobody else, also after a
// restart; what an image has counts; and nothing of it is left with the volume gone.
func TestQuota(t *testing.T) {
	for _, kind := range []string{"ext4-quota", "xfs-quota"} {
		t.Run(kind, func(t *testing.T) {
			s, root, docs := newStore(t, kind)
			made := func(name, key, size string) record.Volume {
				v, _, err := s.Create(ask.CreateVolume{Name: name, Options: map[string]string{key: size}}, "")
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(v.Mountpoint, 0o777); err != nil {
					t.Fatal(err)
				}
				return v
			}
			docker, podman, _ := made("docker", "size", "4m"), made("podman", "o", "size=8m"), made("free", "size", "0")
			if docker.Project == podman.Project || docker.Project < firstProject {
				t.Errorf("projects %d and %d", docker.Project, podman.Project)
			}
			dir := root + "/volumes/"
			if said := writes(t, dir+"docker/_data", "f", "6"); !strings.Contains(said, "quota exceeded") && !strings.Contains(said, "No space left") {
				t.Errorf("6 MiB in a volume of 4: %q", said)
			}
			if said := writes(t, dir+"podman/_data", "f", "6") + writes(t, dir+"free/_data", "f", "20"); said != "" {
				t.Errorf("volumes with room: %s", said)
			}
			s = open(t, root, docs)
			if err := s.Use("docker", "c"); err != nil {
				t.Error(err)
			}
			if said := writes(t, dir+"podman/_data", "g", "4"); said == "" {
				t.Error("after a restart the quota is gone")
			}
			for _, name := range []string{"docker", "podman"} {
				remove, err := s.Doom(name)
				if err == nil {
					err = remove()
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			for _, v := range []record.Volume{docker, podman} {
				if used, err := quota.Get(s.dir, v.Project); err != nil || used.Limit != 0 {
					t.Errorf("%s is gone, and %+v is left, %v", v.Name, used, err)
				}
			}
		})
	}
}

// What the image has does not fit: the volume stays empty, and can be filled with less.
func TestQuotaFill(t *testing.T) {
	for _, kind := range []string{"ext4-quota", "xfs-quota"} {
		t.Run(kind, func(t *testing.T) {
			s, root, _ := newStore(t, kind)
			if _, _, err := s.Create(ask.CreateVolume{Name: "vol", Options: map[string]string{"size": "4m"}}, ""); err != nil {
				t.Fatal(err)
			}
			with := func(mib int) error {
				return fill(s, "vol", func(dst string) error { return os.WriteFile(dst+"/f", make([]byte, mib<<20), 0o600) })
			}
			if err := with(6); !fault.Is(err, fault.Exhausted) && !strings.Contains(err.Error(), "no space left") {
				t.Errorf("6 MiB into 4: %v", err)
			}
			if left, err := os.ReadDir(root + "/volumes/vol/_data"); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
			if err := with(2); err != nil {
				t.Errorf("2 MiB into 4: %v", err)
			}
			if n, err := s.Size("vol"); err != nil || n != 2<<20 {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
	}
}

// Where nobody is held to a quota none is promised.
func TestQuotaRefused(t *testing.T) {
	for kind, want := range map[string]string{"tmpfs": "they need xfs or ext4", "ext4": "mount it with prjquota", "xfs": "mount the xfs with prjquota"} {
		t.Run(kind, func(t *testing.T) {
			s, _, _ := newStore(t, kind)
			_, _, err := s.Create(ask.CreateVolume{Name: "vol", Options: map[string]string{"size": "4m"}}, "")
			if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "create vol: quota size requested but no quota support") || !strings.Contains(fault.HintOf(err), want) {
				t.Errorf("%v (%s)", err, fault.HintOf(err))
			}
			if list := s.List(); len(list) > 0 {
				t.Errorf("left: %v", list)
			}
		})
	}
	for o, want := range map[[2]string]string{
		{"size", "zz"}: "invalid size: 'zz'", {"size", "-1"}: "invalid size: '-1'", {"o", "size=zz"}: "invalid size: 'zz'", {"o", "mode=1"}: "missing required option",
	} {
		if err := checkOptions(map[string]string{o[0]: o[1]}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", o, err)
		}
	}
	if err := checkOptions(map[string]string{"size": "1g", "type": "tmpfs", "device": "tmpfs"}); err == nil || !strings.Contains(err.Error(), "options of its own") {
		t.Error(err)
	}
}
