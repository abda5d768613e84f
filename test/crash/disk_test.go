package crash

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"fief/internal/kernel/mnt/mnttest"

	"golang.org/x/sys/unix"
)

// disk is a disk of this process's own making, which device-mapper's log-writes
// target would be where the kernel has it: a file system of FUSE with one file,
// below a loop device. Every write of the block layer and every flush (the loop
// driver turns REQ_OP_FLUSH into fsync(2) on its file, drivers/block/loop.c)
// comes here, in order, and is noted; and it can fail.
type disk struct {
	path string // of the file
	back *os.File
	conn int // /dev/fuse

	mu     sync.Mutex // guards the rest
	log    []write    // since record
	noting bool
	fail   func(op string, off int64) bool // answers EIO
}

// write is what the disk was told: data, or with none a flush.
type write struct {
	off  int64
	data []byte
}

const (
	diskSize = 400 << 20
	maxWrite = 128 << 10
)

// The opcodes of linux/fuse.h that come here.
const (
	fuseLookup     = 1
	fuseForget     = 2
	fuseGetattr    = 3
	fuseSetattr    = 4
	fuseOpen       = 14
	fuseRead       = 15
	fuseWrite      = 16
	fuseStatfs     = 17
	fuseRelease    = 18
	fuseFsync      = 20
	fuseFlush      = 25
	fuseInit       = 26
	fuseInterrupt  = 36
	fuseBatchForge = 42
)

func newDisk(t *testing.T) *disk {
	t.Helper()
	back, err := os.OpenFile(filepath.Join(t.TempDir(), "back"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { back.Close() })
	if err := back.Truncate(diskSize); err != nil {
		t.Fatal(err)
	}
	conn, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip("kernel: no FUSE: " + err.Error())
	}
	dir := t.TempDir()
	if err := unix.Mount("fief-disk", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", conn)); err != nil {
		unix.Close(conn)
		t.Skip("kernel: no FUSE: " + err.Error())
	}
	d := &disk{path: dir + "/disk", back: back, conn: conn}
	done := make(chan struct{})
	go func() { d.serve(); close(done) }()
	t.Cleanup(func() {
		unix.Unmount(dir, unix.MNT_DETACH)
		unix.Close(conn)
		<-done
	})
	return d
}

// serve answers until the file system is unmounted.
func (d *disk) serve() {
	buf := make([]byte, maxWrite+8192)
	for {
		n, err := unix.Read(d.conn, buf)
		switch err {
		case nil:
		case unix.EINTR, unix.EAGAIN, unix.ENOENT:
			continue
		default:
			return
		}
		op, unique := binary.LittleEndian.Uint32(buf[4:]), binary.LittleEndian.Uint64(buf[8:])
		node := binary.LittleEndian.Uint64(buf[16:])
		if op == fuseForget || op == fuseInterrupt || op == fuseBatchForge {
			continue
		}
		body, errno := d.answer(op, node, buf[40:n])
		out := make([]byte, 16, 16+len(body))
		binary.LittleEndian.PutUint32(out[4:], uint32(-int32(errno)))
		binary.LittleEndian.PutUint64(out[8:], unique)
		out = append(out, body...)
		binary.LittleEndian.PutUint32(out, uint32(len(out)))
		unix.Write(d.conn, out)
	}
}

func (d *disk) answer(op uint32, node uint64, in []byte) ([]byte, unix.Errno) {
	le := binary.LittleEndian
	switch op {
	case fuseInit:
		out := make([]byte, 64)
		le.PutUint32(out, 7)
		le.PutUint32(out[4:], 31)
		le.PutUint32(out[8:], le.Uint32(in[8:]))
		le.PutUint32(out[12:], 1<<5) // FUSE_BIG_WRITES
		le.PutUint16(out[16:], 64)
		le.PutUint16(out[18:], 48)
		le.PutUint32(out[20:], maxWrite)
		le.PutUint32(out[24:], 1)
		return out, 0
	case fuseLookup:
		out := make([]byte, 40)
		le.PutUint64(out, 2)
		le.PutUint64(out[16:], 1<<30)
		le.PutUint64(out[24:], 1<<30)
		return append(out, attr(2)...), 0
	case fuseGetattr, fuseSetattr:
		out := make([]byte, 16)
		le.PutUint64(out, 1<<30)
		return append(out, attr(node)...), 0
	case fuseOpen:
		out := make([]byte, 16)
		le.PutUint32(out[8:], 1) // FOPEN_DIRECT_IO: nothing is kept between the loop device and here
		return out, 0
	case fuseRead:
		return d.read(int64(le.Uint64(in[8:])), int(le.Uint32(in[16:])))
	case fuseWrite:
		n := le.Uint32(in[16:])
		errno := d.write(int64(le.Uint64(in[8:])), in[40:40+n])
		out := make([]byte, 8)
		le.PutUint32(out, n)
		return out, errno
	case fuseFsync:
		return nil, d.flush()
	case fuseFlush, fuseRelease:
		return nil, 0
	case fuseStatfs:
		return make([]byte, 80), 0
	}
	return nil, unix.ENOSYS
}

// attr is struct fuse_attr of the root, 1, or the file, 2.
func attr(node uint64) []byte {
	out := make([]byte, 88)
	le := binary.LittleEndian
	le.PutUint64(out, node)
	mode := uint32(unix.S_IFDIR | 0o700)
	if node == 2 {
		mode = unix.S_IFREG | 0o600
		le.PutUint64(out[8:], diskSize)
		le.PutUint64(out[16:], diskSize/512)
	}
	le.PutUint32(out[60:], mode)
	le.PutUint32(out[64:], 1)
	le.PutUint32(out[80:], 4096)
	return out
}

func (d *disk) fails(op string, off int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fail != nil && d.fail(op, off)
}

func (d *disk) failWhen(f func(op string, off int64) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = f
}

func (d *disk) read(off int64, n int) ([]byte, unix.Errno) {
	if d.fails("read", off) {
		return nil, unix.EIO
	}
	out := make([]byte, n)
	m, _ := d.back.ReadAt(out, off)
	return out[:m], 0
}

func (d *disk) write(off int64, data []byte) unix.Errno {
	if d.fails("write", off) {
		return unix.EIO
	}
	if _, err := d.back.WriteAt(data, off); err != nil {
		return unix.EIO
	}
	d.note(write{off, data})
	return 0
}

func (d *disk) flush() unix.Errno {
	if d.fails("flush", 0) {
		return unix.EIO
	}
	d.note(write{})
	return 0
}

func (d *disk) note(w write) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.noting {
		w.data = append([]byte(nil), w.data...)
		d.log = append(d.log, w)
	}
}

// at is how much was noted until now.
func (d *disk) at() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.log)
}

// record begins to note, and returns a file with what the disk holds now.
func (d *disk) record(t *testing.T) *os.File {
	t.Helper()
	base := filepath.Join(t.TempDir(), "base")
	mnttest.Tool(t, "cp", "--sparse=always", d.back.Name(), base)
	d.mu.Lock()
	d.noting = true
	d.mu.Unlock()
	f, err := os.OpenFile(base, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// mounted mounts an image by a loop device that goes with the mount.
func mounted(t *testing.T, image string) string {
	t.Helper()
	dir := t.TempDir()
	mnttest.Tool(t, "mount", "-o", "loop", image, dir)
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}
