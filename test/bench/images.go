package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"fief/internal/image/registrytest"
)

// imageOptions is what was asked of the part that is about images.
type imageOptions struct {
	big    bool
	rounds int    // pulls of each engine
	cache  string // where Debian packages are kept
	parts  string // comma-separated: which
}

func (o imageOptions) lists() [][]string {
	if o.big {
		return bigImage
	}
	return smallImage
}

// defaultCache is below the user's cache. Without one it is temporary.
func defaultCache() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "fief-bench")
}

// fetch downloads all packages, from a network that the rest of the bench does
// not have. What fails here is told when it is missed.
func (o imageOptions) fetch() {
	all := dockerPackages
	if _, err := exec.LookPath("dockerd"); err == nil {
		all = nil
	}
	for _, list := range append([][]string{all}, o.lists()...) {
		if len(list) == 0 {
			continue
		}
		if _, err := fetchDebs(o.cache, list); err == nil {
			continue
		}
		exec.Command("apt-get", "update", "-qq").Run()
		if _, err := fetchDebs(o.cache, list); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}
}

// images times pulls of an image of Debian packages from a registry on
// loopback, beside other engines, and what is done with the image then. Its
// rows are complete.
func (s *stage) images(o imageOptions) ([]*contestant, []verdict) {
	dir := filepath.Join(s.work, "images")
	check(os.Mkdir(dir, 0o711))
	img, err := makeDebianImage(o.cache, o.lists())
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: images are left out, Debian packages cannot be had:", err)
		return nil, []verdict{missing("everything about images", "Debian packages", err.Error())}
	}
	p := &pulls{stage: s, imageOptions: o, dir: dir, files: img.files, bytes: img.bytes}
	defer p.close()
	defer p.serve(img)()
	img.Tars = nil // some GB, of which the registry needed the digests
	debug.FreeOSMemory()
	p.enoughRoom()
	fmt.Printf("image: %d layers, %d files, %.0f MB, %.0f MB compressed\n", len(img.Blobs), img.files, float64(img.bytes)/1e6, float64(p.packed)/1e6)
	var rows []*contestant
	var verdicts []verdict
	for _, part := range []struct {
		name string
		run  func() ([]*contestant, []verdict)
	}{{"pulls", p.compare}, {"maps", p.newMaps}, {"commits", p.commits}, {"fallbacks", p.fallbacks}} {
		if o.parts != "" && !slices.Contains(strings.Split(o.parts, ","), part.name) {
			continue
		}
		more, judged := part.run()
		rows, verdicts = append(rows, more...), append(verdicts, judged...)
	}
	return rows, verdicts
}

// pulls is the image, where it is served, and what was made of it.
type pulls struct {
	*stage
	imageOptions
	dir                  string
	files, bytes, packed int64
	name                 string // host:port/repository:tag
	layers               []string
	places               int
	undo                 []func()
	absent               map[string]string // engines that are not there, and why
}

// serve starts the registry; its result ends it.
func (p *pulls) serve(img debianImage) (end func()) {
	registry := &registrytest.Registry{}
	registry.Push("debian", "bench", img.Image)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	server := &http.Server{Handler: registry}
	go server.Serve(l)
	p.name = l.Addr().String() + "/debian:bench"
	for i, b := range img.Blobs {
		path := filepath.Join(p.dir, fmt.Sprint("layer", i, ".tar.gz"))
		check(os.WriteFile(path, b, 0o600))
		p.layers = append(p.layers, path)
		p.packed += int64(len(b))
	}
	return func() { server.Close() }
}

// enoughRoom fails when what all engines store does not fit: nothing is removed
// between the rounds, see place.
func (p *pulls) enoughRoom() {
	var st syscall.Statfs_t
	check(syscall.Statfs(p.dir, &st))
	need, free := int64(p.rounds*5+2)*(p.bytes+p.packed), int64(st.Bavail)*st.Bsize
	if free < need {
		fatal(fmt.Errorf("%s has %d GB free, %d rounds need %d GB: set TMPDIR, or fewer -rounds", p.dir, free>>30, p.rounds, need>>30))
	}
}

// place makes an empty directory. Each pull has one: ext4 is slow in making
// files soon after it has removed many, since it does not use their inodes
// again for minutes.
func (p *pulls) place() string {
	p.places++
	dir := filepath.Join(p.dir, fmt.Sprint(p.places))
	check(os.Mkdir(dir, 0o700))
	return dir
}

// removePlaces removes what was pulled.
func (p *pulls) removePlaces() {
	for i := len(p.undo) - 1; i >= 0; i-- {
		p.undo[i]()
	}
	p.undo = nil
	for i := range p.places {
		os.RemoveAll(filepath.Join(p.dir, fmt.Sprint(i+1)))
	}
}

func (p *pulls) close() {
	p.removePlaces()
	os.RemoveAll(p.dir)
}

// lacks notes that an engine is not there.
func (p *pulls) lacks(engine string, why ...any) {
	if p.absent == nil {
		p.absent = map[string]string{}
	}
	p.absent[engine] = strings.TrimSpace(fmt.Sprintln(why...))
	fmt.Fprintf(os.Stderr, "bench: %s is left out: %s\n", engine, p.absent[engine])
}

// settled writes everything to the disk and forgets what was read from it, so
// that every run finds the same.
func settled() {
	syscall.Sync()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		fmt.Fprintln(os.Stderr, "bench: caches are not dropped:", err)
	}
}

// durable is syncfs(2) of the file system of dir.
func durable(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd())))
}
