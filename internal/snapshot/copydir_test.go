package snapshot

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/mnt/mnttest"
)

// What is copied out of layers is what a container would see there, with inside
// ids: of several layers joined, along links of the image, with what files have
// besides their bytes.
func TestCopyDir(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			root := mnttest.FileSystem(t, kind)
			s := openStore(t, root, Options{})
			low, top := lowID, topID
			capability := []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
			acl := []byte("\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x06\x00\xe7\x03\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x06\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff")
			buildLayer(t, s, low, func(dir string) {
				err := errors.Join(os.Mkdir(dir+"/data", 0o755), os.Symlink("/data", dir+"/link"), os.WriteFile(dir+"/data/gone", nil, 0o600),
					os.WriteFile(dir+"/data/f", []byte("f"), 0o600), os.Link(dir+"/data/f", dir+"/data/hard"), os.WriteFile(dir+"/data/hole", nil, 0o600),
					os.Truncate(dir+"/data/hole", 1<<30), os.Chown(dir+"/data/f", 999, 998), unix.Chmod(dir+"/data/f", 0o4755),
					unix.Setxattr(dir+"/data/f", "security.capability", capability, 0), unix.Setxattr(dir+"/data/hole", "system.posix_acl_access", acl, 0))
				if err != nil {
					t.Fatal(err)
				}
			})
			buildLayer(t, s, top, func(dir string) {
				err := errors.Join(os.Mkdir(dir+"/data", 0o700), os.Chown(dir+"/data", 7, 8), unix.Mknod(dir+"/data/gone", unix.S_IFCHR, 0), os.WriteFile(dir+"/data/new", nil, 0o600))
				if err != nil {
					t.Fatal(err)
				}
			})
			out := filepath.Join(root, "out")
			if err := os.Mkdir(out, 0o755); err != nil {
				t.Fatal(err)
			}
			dst, err := at.Dir(out)
			if err != nil {
				t.Fatal(err)
			}
			defer dst.Close()
			if ok, err := s.CopyDir(context.Background(), []string{low, top}, false, "/link", dst); !ok || err != nil {
				t.Fatal(ok, err)
			}
			var d, f, hard, hole unix.Stat_t
			if err := errors.Join(unix.Stat(out, &d), unix.Stat(out+"/f", &f), unix.Stat(out+"/hard", &hard), unix.Stat(out+"/hole", &hole), unix.Access(out+"/new", 0)); err != nil {
				t.Fatal(err)
			}
			if d.Uid != 7 || d.Gid != 8 || d.Mode&0o7777 != 0o700 || f.Uid != 999 || f.Gid != 998 || f.Mode&0o7777 != 0o4755 {
				t.Errorf("%d:%d %o, %d:%d %o", d.Uid, d.Gid, d.Mode, f.Uid, f.Gid, f.Mode)
			}
			if f.Ino != hard.Ino || f.Nlink != 2 || hole.Size != 1<<30 || hole.Blocks > 1<<12 {
				t.Errorf("links %d, %d blocks", f.Nlink, hole.Blocks)
			}
			if v, err := at.Xattr(out+"/f", "security.capability"); string(v) != string(capability) {
				t.Errorf("capability %x, %v", v, err)
			}
			if v, err := at.Xattr(out+"/hole", "system.posix_acl_access"); string(v) != string(acl) {
				t.Errorf("acl %x, %v", v, err)
			}
			if err := unix.Access(out+"/gone", 0); !errors.Is(err, unix.ENOENT) {
				t.Error("a whiteout does not hide")
			}
			for _, none := range []string{"/none", "/data/f", "/../x"} {
				if ok, err := s.CopyDir(context.Background(), []string{low, top}, false, none, dst); ok || err != nil {
					t.Errorf("%s: %v, %v", none, ok, err)
				}
			}
		})
	}
}
