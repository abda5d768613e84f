package volume

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/fd"
	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// The kernel is given addresses, whether the options or the device name the server, and
// no word that was for mount(8).
func TestResolved(t *testing.T) {
	for _, c := range []struct{ kind, device, o, want string }{
		{"nfs", ":/x", "addr=10.0.0.1,rw,nfsvers=4,_netdev,nofail,x-systemd.automount", "addr=10.0.0.1,nfsvers=4"},
		{"nfs", ":/x", "addr=localhost,soft", "addr=127.0.0.1,soft"},
		{"nfs4", "localhost:/x", "soft", "soft,addr=127.0.0.1"},
		{"nfs", "[::1]:/x", "", "addr=::1"},
		{"nfs", "localhost:/x", "addr=10.0.0.2", "addr=10.0.0.2"},
		{"cifs", "//localhost/share", "username=u", "username=u,addr=127.0.0.1"},
		{"cifs", "//elsewhere/share", "ip=localhost", "ip=127.0.0.1"},
		{"tmpfs", "localhost:/x", "addr=localhost,noauto", "addr=localhost"},
	} {
		_, words, _ := parseFlags(c.o)
		got, err := resolved(c.kind, c.device, words)
		if err != nil || strings.Join(got, ",") != c.want {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
	}
	if _, err := resolved("nfs", "no-such-host.invalid:/x", nil); !fault.Is(err, fault.Unavailable) {
		t.Error(err)
	}
}

// nfsServer has the kernel serve a directory by NFS 4 to this host, as what ":/" names.
// What exportfs(8) and mountd(8) do is done here: nfsd(7), "nfsd.export" and "nfsd.fh".
func nfsServer(t *testing.T) string {
	mnttest.NeedRoot(t)
	for _, module := range []string{"nfs", "nfsv4", "nfsd"} {
		_ = exec.Command("modprobe", module).Run() // it may be built in
	}
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		t.Fatal(err)
	}
	have := strings.Fields(string(known))
	if !slices.Contains(have, "nfs4") || !slices.Contains(have, "nfsd") {
		t.Skip("kernel: no nfs client and server")
	}
	const ctl = "/proc/fs/nfsd"
	if err := unix.Mount("nfsd", ctl, "nfsd", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	const always = "2147483647"
	for _, w := range [][2]string{
		{ctl + "/nfsv4leasetime", "10"}, {ctl + "/nfsv4gracetime", "10"}, {ctl + "/versions", "-3 +4 +4.1 +4.2"},
		{"/proc/net/rpc/auth.unix.ip/channel", "nfsd 127.0.0.1 " + always + " here"},
		{"/proc/net/rpc/nfsd.export/channel", "here " + dir + " " + always + " 9234 65534 65534 0"}, // fsid=0, rw, insecure, no_subtree_check, async, no_root_squash
		{"/proc/net/rpc/nfsd.fh/channel", `here 1 \x00000000 ` + always + " " + dir},
		{ctl + "/portlist", "tcp 2049"}, {ctl + "/threads", "2"},
	} {
		if err := os.WriteFile(w[0], []byte(w[1]+"\n"), 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { os.WriteFile(ctl+"/threads", []byte("0\n"), 0) })
	_ = os.WriteFile(ctl+"/v4_end_grace", []byte("Y\n"), 0) // nobody has anything to claim
	return dir
}

// A volume of a real server: it is mounted for its first user and unmounted after the
// last; what it holds are the server's ids, and through a map it is refused with the
// ways out.
func TestNFS(t *testing.T) {
	dir := nfsServer(t)
	s, root, _ := newStore(t, "")
	for name, o := range map[string]map[string]string{
		"addr": {"type": "nfs", "device": ":/", "o": "addr=localhost,rw,nfsvers=4.2,_netdev,hard"},
		"host": {"type": "nfs4", "device": "127.0.0.1:/", "o": "rw"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := s.Create(ask.CreateVolume{Name: name, Options: o}, ""); err != nil {
				t.Fatal(err)
			}
			if err := s.Use(name, "c"); err != nil {
				t.Fatal(err, fault.HintOf(err))
			}
			f, err := s.Mount(record.Mount{Kind: "volume", Name: name}, As{})
			if err != nil {
				t.Fatal(err)
			}
			path := fd.Path(f) + "/" + name
			if err := errors.Join(os.WriteFile(path, []byte("kept"), 0o600), os.Chown(path, 999, 998)); err != nil {
				t.Error(err)
			}
			f.Close()
			var st unix.Stat_t
			if err := unix.Stat(dir+"/"+name, &st); err != nil || st.Uid != 999 || st.Gid != 998 {
				t.Errorf("on the server: %d:%d, %v", st.Uid, st.Gid, err)
			}
			_, err = s.Mount(record.Mount{Kind: "volume", Name: name}, As{Pair: pair(t)})
			if !fault.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), name+" (nfs") || !strings.Contains(fault.HintOf(err), "--userns=host") {
				t.Errorf("through a map: %v (%s)", err, fault.HintOf(err))
			}
			s.Free(name, "c")
			if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), root+"/volumes/"+name) {
				t.Errorf("it stays mounted, %v", err)
			}
		})
	}
	for _, c := range []struct{ device, more, want string }{
		{"127.0.0.1:/nowhere", ",nfsvers=4.2", "no such path"}, {"127.0.0.2:/", ",nfsvers=4.2,port=1", "no server answers: check"}, {"127.0.0.1:/", "", "try nfsvers=4"},
	} {
		device, want := c.device, c.want
		if _, _, err := s.Create(ask.CreateVolume{Name: "bad", Options: map[string]string{"type": "nfs", "device": device, "o": "soft,timeo=20,retrans=1" + c.more}}, ""); err != nil {
			t.Fatal(err)
		}
		err := s.Use("bad", "c")
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "failed to mount local volume: mount "+device) || !strings.Contains(fault.HintOf(err), want) {
			t.Errorf("%s: %v (%s)", device, err, fault.HintOf(err))
		}
		if remove, err := s.Doom("bad"); err != nil || remove() != nil {
			t.Error(err)
		}
	}
}
