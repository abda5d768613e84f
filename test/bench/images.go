package main

import (
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"fief/internal/image/registrytest"
)

// images times pulls of an image of Debian packages from a registry on
// loopback, beside what else is installed, and first starts under new maps. Its
// rows are complete.
func (s *stage) images(big bool, runs int) []*contestant {
	lists := smallImage
	if big {
		lists = bigImage
	}
	dir := filepath.Join(s.work, "images")
	img, err := makeDebianImage(dir, lists)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: images are left out, Debian packages cannot be had:", err)
		return nil
	}
	p := &pulls{stage: s, dir: dir, img: img}
	defer p.close()
	defer p.serve()()
	list := p.contestants()
	round(list, runs, time.Second)
	p.end()
	fmt.Printf("fiefd needed %.1f MB more than before for a pull\n", float64(p.needed)/1e3)
	return append(list, p.newMaps(20)...)
}

type pulls struct {
	*stage
	dir    string
	img    debianImage
	name   string // host:port/repository:tag
	places int

	pulling        *exec.Cmd // the daemon of the present pull
	before, needed int64     // its memory before the pull, and the most any needed beyond; kB

	remove, mounts []string
}

// serve starts the registry; its result ends it.
func (p *pulls) serve() (end func()) {
	registry := &registrytest.Registry{}
	registry.Push("debian", "bench", p.img.Image)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	server := &http.Server{Handler: registry}
	go server.Serve(l)
	p.name = l.Addr().String() + "/debian:bench"
	for i, b := range p.img.Blobs {
		check(os.WriteFile(p.layer(i), b, 0o600))
	}
	return func() { server.Close() }
}

func (p *pulls) layer(i int) string { return filepath.Join(p.dir, fmt.Sprint(i, ".tar.gz")) }

func (p *pulls) row(name string, make func() *exec.Cmd) *contestant {
	return &contestant{Group: "pull", Name: fmt.Sprintf("%s, %d files, %d MB", name, p.img.files, p.img.bytes/1e6), make: make}
}

// contestants are ways to have the image. Each run begins in a place of its
// own that is empty: ext4 is slow in making files soon after it has removed
// many, since it does not use their inodes again for minutes.
func (p *pulls) contestants() []*contestant {
	list := []*contestant{p.row("fief pull", p.fiefPull), p.row("tar -xzf one layer after another, sync", p.tar)}
	if path, err := exec.LookPath("skopeo"); err == nil {
		list = append(list, p.row("skopeo copy to oci: (nothing is unpacked)", func() *exec.Cmd {
			return exec.Command(path, "copy", "-q", "--src-tls-verify=false", "docker://"+p.name, "oci:"+p.place())
		}))
	}
	list = append(list, p.podman()...)
	docker := strings.Fields("-H unix:///var/run/docker.sock")
	if exec.Command("docker", append(docker, "version")...).Run() != nil {
		fmt.Fprintln(os.Stderr, "bench: no docker engine runs here; its pull is left out")
		return list
	}
	return append(list, p.row("docker pull", func() *exec.Cmd {
		exec.Command("docker", append(docker, "rmi", "-f", p.name)...).Run()
		syscall.Sync()
		return exec.Command("docker", append(docker, "pull", "-q", p.name)...)
	}))
}

// place makes an empty directory, with nothing left to write to the disk.
func (p *pulls) place() string {
	p.places++
	dir := filepath.Join(p.dir, strconv.Itoa(p.places))
	check(os.Mkdir(dir, 0o700))
	syscall.Sync()
	return dir
}

// fiefPull ends the daemon of the pull before, if there was one, and notes what
// memory that needed.
func (p *pulls) fiefPull() *exec.Cmd {
	p.end()
	dir := p.place()
	p.pulling = exec.Command(p.bin+"/fiefd", "--data-root", dir+"/data", "--exec-root", dir+"/run", "--id-registry", dir+"/ids", "--pool-size", "0")
	check(p.pulling.Start())
	fief := func(args ...string) *exec.Cmd {
		cmd := exec.Command(p.bin+"/fief", args...)
		cmd.Env = append(os.Environ(), "FIEF_HOST=unix://"+dir+"/run/docker.sock")
		return cmd
	}
	for end := time.Now().Add(10 * time.Second); fief("version").Run() != nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			fatal(fmt.Errorf("fiefd in %s does not answer", dir))
		}
	}
	p.before = status(p.pulling.Process.Pid, "VmRSS")
	return fief("pull", "-q", p.name)
}

// end ends the daemon that pulls, and notes what memory the pull needed.
func (p *pulls) end() {
	if p.pulling == nil {
		return
	}
	p.needed = max(p.needed, status(p.pulling.Process.Pid, "VmHWM")-p.before)
	p.pulling.Process.Signal(os.Interrupt)
	p.pulling.Wait()
	p.pulling = nil
}

// tar extracts the layers, which it need not fetch, and makes them durable as
// fief does.
func (p *pulls) tar() *exec.Cmd {
	to := p.place()
	var script strings.Builder
	for i := range p.img.Blobs {
		fmt.Fprintf(&script, "mkdir %[1]s/%[2]d && tar -C %[1]s/%[2]d -xzf %[3]s && ", to, i, p.layer(i))
	}
	return exec.Command("sh", "-c", script.String()+"sync -f "+to)
}

func (p *pulls) podman() []*contestant {
	path, err := exec.LookPath("podman")
	if err != nil {
		return nil
	}
	pull := func() *exec.Cmd {
		runroot, err := os.MkdirTemp("", "fb") // podman wants it to be short
		check(err)
		p.remove = append(p.remove, runroot)
		root := p.place()
		p.mounts = append(p.mounts, root+"/overlay")
		return exec.Command(path, "--root", root, "--runroot", runroot, "--cgroup-manager", "cgroupfs", "--events-backend", "none",
			"--storage-driver", "overlay", "pull", "-q", "--tls-verify=false", p.name)
	}
	if out, err := pull().CombinedOutput(); err != nil {
		fmt.Fprintln(os.Stderr, "bench: podman is left out, it cannot pull here:", lastLine(out))
		return nil
	}
	return []*contestant{p.row("podman pull", pull)}
}

// close ends everything and removes what was pulled.
func (p *pulls) close() {
	p.end()
	for _, m := range p.mounts {
		syscall.Unmount(m, syscall.MNT_DETACH)
	}
	for _, dir := range append(p.remove, p.dir) {
		os.RemoveAll(dir)
	}
}

// status reads a line of proc_pid_status(5) in kB.
func status(pid int, key string) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	check(err)
	_, rest, _ := strings.Cut(string(b), key+":")
	kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	check(err)
	return kb
}

// newMaps starts containers of the image under maps that no container had, each
// twice: the second start finds whatever the first had to make.
func (p *pulls) newMaps(n int) []*contestant {
	p.must(p.fief("pull", "-q", p.name))
	first := &contestant{Group: "maps", Name: "fief run, first start under a new map"}
	second := &contestant{Group: "maps", Name: "fief run, second start under the same map"}
	start := func(c *contestant, base int) {
		m := fmt.Sprintf("0:%d:65536", base)
		cmd := p.fief("run", "--rm", "--network", "none", "--uidmap", m, "--gidmap", m, p.name, "/bin/true")
		time.Sleep(40 * time.Millisecond)
		from := time.Now()
		out, err := cmd.CombinedOutput()
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %s\n", c.Name, lastLine(out))
			c.Fails++
			return
		}
		c.Runs = append(c.Runs, time.Since(from))
	}
	const unused = 3 << 30 // above the pool
	start(&contestant{}, unused)
	inodes, bytes := p.used()
	for i := range n {
		base := unused + (i+1)<<16
		start(first, base)
		start(second, base)
	}
	moreInodes, moreBytes := p.used()
	fmt.Printf("%d new maps left %d inodes and %d bytes in the store\n", n, moreInodes-inodes, moreBytes-bytes)
	return []*contestant{first, second}
}

// used counts what is in the store of layers and of what is made of them.
func (p *pulls) used() (inodes, bytes int64) {
	time.Sleep(time.Second) // what removed containers had goes in the background
	check(filepath.WalkDir(filepath.Join(p.work, "data"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // removed meanwhile
		}
		if d.IsDir() && d.Name() == "uppers" {
			return fs.SkipDir // a stock of ready ones, whatever the maps
		}
		var st syscall.Stat_t
		if syscall.Lstat(path, &st) == nil && filepath.Base(path) != "state.db" {
			inodes, bytes = inodes+1, bytes+st.Blocks*512
		}
		return nil
	}))
	return inodes, bytes
}
