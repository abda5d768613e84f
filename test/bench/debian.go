package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"fief/internal/image/registrytest"
)

// The Debian packages an image of the bench is made of, a list for each layer.
// There are trees of many small files (headers, sources), a few very large ones
// (compilers' libraries), and everything between, as images have them.
var (
	smallImage = [][]string{
		{"libc6", "coreutils", "bash", "libtinfo6", "perl-base", "perl-modules-5.36", "tzdata", "util-linux", "systemd"},
		{"libpython3.11-stdlib", "python3.11-minimal", "python3-sympy", "python3-numpy"},
		{"gcc-12", "cpp-12", "libstdc++-12-dev", "libc6-dev"},
		{"golang-1.19-src"},
		{"libllvm14", "git"},
	}
	bigImage = [][]string{
		{"libc6", "coreutils", "bash", "libtinfo6", "perl-base", "perl-modules-5.36", "tzdata", "util-linux", "systemd", "vim-runtime", "git", "locales"},
		{"gcc-12", "g++-12", "cpp-12", "libstdc++-12-dev", "libc6-dev", "binutils-x86-64-linux-gnu"},
		{"libpython3.11-stdlib", "libpython3.11-dev", "python3.11-minimal", "python3-numpy", "python3-scipy", "python3-matplotlib", "python3-django", "iso-codes"},
		{"golang-1.19-src", "golang-1.19-go"},
		{"llvm-14-dev", "libclang-cpp14", "libstd-rust-dev", "libnode108", "libicu72"},
	}
)

// debianImage is an image made of Debian packages.
type debianImage struct {
	registrytest.Image
	files, bytes int64 // what its layers hold: entries, and the content of files
}

// makeDebianImage packs each list of packages, which fetchDebs has fetched into
// cache, into a layer, gzipped as images are.
func makeDebianImage(cache string, lists [][]string) (debianImage, error) {
	var img debianImage
	for _, list := range lists {
		debs, err := fetchDebs(cache, list)
		if err != nil {
			return img, err
		}
		raw, err := img.layerOf(debs)
		if err != nil {
			return img, err
		}
		img.Tars = append(img.Tars, raw)
		img.Blobs = append(img.Blobs, registrytest.Gzip(raw))
	}
	return img, nil
}

// fetchDebs downloads with apt into cache those of the packages that are not
// there in apt's present versions, and returns the paths of all.
func fetchDebs(cache string, packages []string) ([]string, error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	apt := func(dir string, args ...string) ([]byte, error) {
		cmd := exec.Command("apt-get", append([]string{"download", "-q", "-o", "APT::Sandbox::User=root"}, args...)...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("apt-get download: %w: %s", err, lastLine(out))
		}
		return out, err
	}
	empty, err := os.MkdirTemp("", "fief-bench-") // what is there already would not be named
	if err != nil {
		return nil, err
	}
	defer os.Remove(empty)
	uris, err := apt(empty, append([]string{"--print-uris"}, packages...)...)
	if err != nil {
		return nil, err
	}
	var paths, missing []string
	for line := range strings.Lines(string(uris)) { // 'http://…' name_version_arch.deb size SHA256:…
		words := strings.Fields(line)
		if len(words) < 3 || !strings.HasPrefix(line, "'") {
			continue
		}
		path := filepath.Join(cache, words[1])
		if st, err := os.Stat(path); err != nil || fmt.Sprint(st.Size()) != words[2] {
			name, _, _ := strings.Cut(words[1], "_")
			missing = append(missing, name)
		}
		paths = append(paths, path)
	}
	if len(paths) != len(packages) {
		return nil, fmt.Errorf("apt-get download --print-uris names %d files for %d packages", len(paths), len(packages))
	}
	if len(missing) > 0 {
		_, err = apt(cache, missing...)
	}
	return paths, err
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// layerOf packs the content of packages into one tar.
func (img *debianImage) layerOf(debs []string) ([]byte, error) {
	var raw bytes.Buffer
	w := tar.NewWriter(&raw)
	seen := map[string]bool{}
	for _, deb := range debs {
		if err := img.unpackDeb(w, deb, seen); err != nil {
			return nil, fmt.Errorf("%s: %w", deb, err)
		}
	}
	err := w.Close()
	return raw.Bytes(), err
}

func (img *debianImage) unpackDeb(w *tar.Writer, deb string, seen map[string]bool) error {
	cmd := exec.Command("dpkg-deb", "--fsys-tarfile", deb)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = img.add(w, tar.NewReader(out), seen)
	if _, drained := io.Copy(io.Discard, out); err == nil {
		err = drained
	}
	return errors.Join(err, cmd.Wait())
}

// add copies an archive's entries, those that are there already left out.
func (img *debianImage) add(w *tar.Writer, r *tar.Reader, seen map[string]bool) error {
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if seen[h.Name] {
			continue
		}
		seen[h.Name] = true
		img.files++
		img.bytes += h.Size
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(w, r); err != nil {
			return err
		}
	}
}
