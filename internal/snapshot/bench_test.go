package snapshot

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/snapshot/shift"
	"fief/internal/words/idmap"
)

// BenchmarkShift is the first root file system of an image under a map: what a
// way costs for each file. "chown" is what an engine does that chowns the files
// through an overlay, so that each is copied up. MB/op is what the file system
// has less of afterwards, cpu-us/file is spent by this process: what a busy
// machine does not distort.
func BenchmarkShift(b *testing.B) {
	images := []struct {
		name        string
		files, size int
	}{{"2000x4K", 2000, 4 << 10}, {"20x4M", 20, 4 << 20}}
	for _, fs := range []string{"ext4", "xfs", "btrfs"} {
		usable := append([]shift.Way{"chown"}, waysOn(b, mnttest.FileSystem(b, fs))...)
		for _, image := range images {
			for _, way := range usable {
				b.Run(fmt.Sprintf("fs=%s/image=%s/way=%s", fs, image.name, way), func(b *testing.B) {
					benchShift(b, fs, way, image.files, image.size)
				})
			}
		}
	}
}

func benchShift(b *testing.B, fs string, way shift.Way, files, size int) {
	force := way
	if way == "chown" {
		force = shift.Idmapped
	}
	s := openStore(b, mnttest.FileSystem(b, fs), Options{Force: force})
	buildLayer(b, s, lowID, func(dir string) { manyFiles(b, dir, files, size) })
	var took int64
	var cpu time.Duration
	b.ResetTimer()
	for i := range b.N {
		b.StopTimer()
		pair := pairOf(b, idmap.Host(1<<20+i<<16))
		before, began := used(b, s), cpuTime(b)
		b.StartTimer()
		var done func()
		if way == "chown" {
			done = chownCopy(b, s)
		} else {
			done = firstRoot(b, s, pair, "")
		}
		b.StopTimer()
		cpu += cpuTime(b) - began
		done()
		took += used(b, s) - before
		if err := s.DropCopies(pair); err != nil {
			b.Fatal(err)
		}
		s.drops.settle()
		b.StartTimer()
	}
	b.ReportMetric(float64(took)/float64(b.N)/1e6, "MB/op")
	b.ReportMetric(float64(cpu.Microseconds())/float64(b.N*files), "cpu-us/file")
	b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N*files), "us/file")
}

func manyFiles(b *testing.B, dir string, files, size int) {
	data := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	for i := range files {
		sub := fmt.Sprintf("%s/usr/lib/d%d", dir, i/100)
		if err := os.MkdirAll(sub, 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(fmt.Sprintf("%s/f%d", sub, i), data, 0o644); err != nil {
			b.Fatal(err)
		}
	}
}

// used is what is not free any more on the store's file system, after a sync.
func used(b testing.TB, s *Store) int64 {
	unix.Syncfs(int(s.build.Fd()))
	f, err := os.Open(s.path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	unix.Syncfs(int(f.Fd()))
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		b.Fatal(err)
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize
}

func cpuTime(b *testing.B) time.Duration {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// firstRoot makes a root file system and returns what clears it away.
func firstRoot(b *testing.B, s *Store, pair idmap.Pair, way string) func() {
	m, err := s.Maps(pair, way)
	if err != nil {
		b.Fatal(err)
	}
	upper := newUpper(b, s)
	r, err := s.Rootfs(Request{Mapped: m, Layers: []string{lowID}, Upper: upper})
	if err != nil {
		b.Fatal(err)
	}
	return func() {
		r.Close()
		m.Close()
		s.DropUpper(upper)
	}
}

func chownCopy(b *testing.B, s *Store) func() {
	m, err := s.Maps(idmap.Pair{}, "")
	if err != nil {
		b.Fatal(err)
	}
	upper := newUpper(b, s)
	r, err := s.Rootfs(Request{Mapped: m, Layers: []string{lowID}, Upper: upper})
	if err != nil {
		b.Fatal(err)
	}
	err = filepath.WalkDir(fmt.Sprintf("/proc/self/fd/%d/.", r.FD.Fd()), func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, 1<<20, 1<<20)
	})
	if err != nil {
		b.Fatal(err)
	}
	return func() {
		r.Close()
		m.Close()
		s.DropUpper(upper)
	}
}
