package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// fileSystems are those without idmapped mounts, as far as the engines are made
// to believe, and fief's ways on them. What a way shares must not be copied.
var fileSystems = []struct {
	name string
	mkfs []string
	opts string
	ways []string
}{
	{"ext4", []string{"mkfs.ext4", "-q", "-F"}, "loop,noinit_itable", []string{"metacopy", "copy"}},
	{"xfs", []string{"mkfs.xfs", "-q", "-m", "reflink=1"}, "loop", []string{"reflink", "metacopy", "copy"}},
	{"btrfs", []string{"mkfs.btrfs", "-q"}, "loop", []string{"reflink", "metacopy", "copy"}},
}

// firstStart is a first start under a new map without idmapped mounts.
type firstStart struct {
	contestant
	way   string // fief's; "": podman
	disk  *disk
	make  func(base int) *exec.Cmd
	added []stored // by each
}

// fallbacks times first starts under new maps where nothing is idmapped,
// beside podman's copy of the image with other owners.
func (p *pulls) fallbacks() (rows []*contestant, verdicts []verdict) {
	p.removePlaces()
	for i := range fileSystems {
		more, judged := p.fallbacksOn(i)
		rows, verdicts = append(rows, more...), append(verdicts, judged...)
	}
	return rows, verdicts
}

func (p *pulls) fallbacksOn(number int) ([]*contestant, []verdict) {
	what := fileSystems[number]
	if _, err := exec.LookPath(what.mkfs[0]); err != nil {
		return nil, []verdict{missing("first start without idmap, "+what.name, what.mkfs[0], err.Error())}
	}
	ours, err := p.newDisk(number, "fief")
	if err != nil {
		return nil, []verdict{missing("first start without idmap, "+what.name, what.name, err.Error())}
	}
	defer ours.remove()
	e := p.newEngine(ours.dir)
	defer e.end()
	p.must(e.fief("pull", "-q", p.name))
	var list []*firstStart
	for _, way := range what.ways {
		row := contestant{Group: "fallback", Name: fmt.Sprintf("%s: fief run, first start, shift=%s", what.name, way)}
		list = append(list, &firstStart{contestant: row, way: way, disk: ours, make: func(base int) *exec.Cmd {
			m := fmt.Sprintf("0:%d:65536", base)
			return e.fief("run", "--rm", "--network", "none", "--storage-opt", "shift="+way, "--uidmap", m, "--gidmap", m, p.name, "/bin/true")
		}})
	}
	theirs, release, err := p.podmanWithoutIdmap(number)
	defer release()
	if err != nil {
		p.lacks("podman on "+what.name, err)
	} else {
		list = append(list, theirs)
	}
	base := unused + 1<<24
	for range p.rounds {
		for _, one := range list {
			base += 1 << 16
			one.once(base)
		}
	}
	return p.judgeFallbacks(what.name, list)
}

// once times a start until what it made is on the disk.
func (s *firstStart) once(base int) {
	endIfAsked()
	before := s.disk.used()
	time.Sleep(time.Second)
	from := time.Now()
	out, err := s.make(base).CombinedOutput()
	if err == nil {
		err = durable(s.disk.dir)
	}
	took := time.Since(from)
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %s: %v: %s\n", s.Name, err, lastLine(out))
		s.Fails++
		return
	}
	time.Sleep(time.Second) // what the removed container had goes in the background
	after := s.disk.used()
	added := stored{after.inodes - before.inodes, after.bytes - before.bytes}
	s.Runs, s.added = append(s.Runs, took), append(s.added, added)
	fmt.Fprintf(os.Stderr, "%s: %s, %s\n", s.Name, duration(ms(took)), added)
}

// podmanWithoutIdmap pulls the image with a podman that finds no idmapped
// mounts. Newer ones are told by the environment, and older ones find what they
// remember of a test they made (containers/storage, drivers/overlay,
// checkAndRecordIDMappedSupport). It does not run containers on every machine,
// but copies when it makes them.
func (p *pulls) podmanWithoutIdmap(number int) (*firstStart, func(), error) {
	path, err := exec.LookPath("podman")
	if err != nil {
		return nil, func() {}, err
	}
	theirs, err := p.newDisk(number, "podman")
	if err != nil {
		return nil, func() {}, err
	}
	m, release := newPodman(path, theirs.dir)
	undo := func() { release(); theirs.remove() }
	check(os.MkdirAll(m.runroot+"/overlay", 0o755))
	check(os.WriteFile(m.runroot+"/overlay/idmapped-lower-dir-false", []byte("not wanted"), 0o600))
	if out, err := m.cmd("pull", "-q", "--tls-verify=false", p.name).CombinedOutput(); err != nil {
		return nil, undo, fmt.Errorf("%w: %s", err, lastLine(out))
	}
	row := contestant{Group: "fallback", Name: fileSystems[number].name + ": podman create, first, idmap off"}
	return &firstStart{contestant: row, disk: theirs, make: func(base int) *exec.Cmd {
		ids := fmt.Sprintf("0:%d:65536", base)
		cmd := m.cmd("create", "--network", "none", "--uidmap", ids, "--gidmap", ids, p.name, "/bin/true")
		cmd.Env = append(cmd.Env, "_CONTAINERS_OVERLAY_DISABLE_IDMAP=yes")
		return cmd
	}}, undo, nil
}

// judgeFallbacks compares fief's ways with podman's copy.
func (p *pulls) judgeFallbacks(name string, list []*firstStart) (rows []*contestant, verdicts []verdict) {
	var podman *firstStart
	for _, one := range list {
		one.median()
		rows = append(rows, &one.contestant)
		if one.way == "" && len(one.Runs) > 0 {
			podman = one
		}
	}
	for _, one := range list {
		if one.way == "" {
			continue
		}
		what := fmt.Sprintf("first start without idmap, %s, %s", name, one.way)
		if len(one.Runs) == 0 {
			verdicts = append(verdicts, missing(what, "fief", "every start failed"))
			continue
		}
		limit := 0.15
		if one.way == "copy" {
			limit = 0
		}
		if podman == nil {
			v := missing(what, "podman", p.absent["podman on "+name])
			v.Got = duration(one.P50)
			verdicts = append(verdicts, v)
		} else {
			verdicts = append(verdicts, compared(what, one.P50, "podman", podman.P50, limit))
		}
		verdicts = append(verdicts, one.space(what, podman))
	}
	return rows, verdicts
}

// space judges what a start added: where data can be shared, no more than the
// inodes and directories need, of which none needs more than a block.
func (s *firstStart) space(what string, podman *firstStart) verdict {
	last := s.added[len(s.added)-1]
	v := verdict{What: what + ": adds", Got: last.String()}
	if podman != nil {
		v.Beside = "podman " + podman.added[len(podman.added)-1].String()
	}
	if s.way != "copy" {
		v.Limit, v.Holds = "no file data", holds(last.bytes <= 4096*max(1, last.inodes))
	}
	return v
}

func (s stored) String() string {
	return fmt.Sprintf("%.1f MB, %d inodes", float64(s.bytes)/1e6, s.inodes)
}

// disk is a file system of its own in a file.
type disk struct{ dir, file string }

func (p *pulls) newDisk(number int, name string) (*disk, error) {
	what := fileSystems[number]
	d := &disk{dir: filepath.Join(p.dir, what.name+"-"+name), file: filepath.Join(p.dir, what.name+"-"+name+".img")}
	check(os.MkdirAll(d.dir, 0o711))
	check(os.WriteFile(d.file, nil, 0o600))
	// Whole copies for each round and, for fief, blobs and layers.
	check(os.Truncate(d.file, int64(p.rounds+3)*(p.bytes+p.packed)*3/2+2<<30))
	for _, cmd := range []*exec.Cmd{
		exec.Command(what.mkfs[0], append(what.mkfs[1:], d.file)...),
		exec.Command("mount", "-t", what.name, "-o", what.opts, d.file, d.dir),
	} {
		if out, err := cmd.CombinedOutput(); err != nil {
			d.remove()
			return nil, fmt.Errorf("%w: %s", err, lastLine(out))
		}
	}
	return d, nil
}

// used counts the blocks that are not free, which tells shared ones from copies,
// and the inodes below the directory.
func (d *disk) used() stored {
	check(durable(d.dir))
	var st syscall.Statfs_t
	check(syscall.Statfs(d.dir, &st))
	s := storedBelow(d.dir)
	s.bytes = int64(st.Blocks-st.Bfree) * st.Bsize
	return s
}

// remove unmounts, at which the loop device goes too.
func (d *disk) remove() {
	for end := time.Now().Add(10 * time.Second); syscall.Unmount(d.dir, 0) == syscall.EBUSY; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			fmt.Fprintln(os.Stderr, "bench:", d.dir, "is busy")
			syscall.Unmount(d.dir, syscall.MNT_DETACH)
			break
		}
	}
	os.Remove(d.file)
	os.Remove(d.dir)
}
