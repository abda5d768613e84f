package main

import (
	"archive/tar"
	"bytes"
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
		{"libc6", "coreutils", "bash", "perl-base", "perl-modules-5.36", "tzdata", "util-linux", "systemd"},
		{"libpython3.11-stdlib", "python3.11-minimal", "python3-sympy", "python3-numpy"},
		{"gcc-12", "cpp-12", "libstdc++-12-dev", "libc6-dev"},
		{"golang-1.19-src"},
		{"libllvm14", "git"},
	}
	bigImage = [][]string{
		{"libc6", "coreutils", "bash", "perl-base", "perl-modules-5.36", "tzdata", "util-linux", "systemd", "vim-runtime", "git", "locales"},
		{"gcc-12", "g++-12", "cpp-12", "libstdc++-12-dev", "libc6-dev", "binutils-x86-64-linux-gnu", "libboost1.81-dev"},
		{"libpython3.11-stdlib", "libpython3.11-dev", "python3.11-minimal", "python3-numpy", "python3-scipy", "python3-matplotlib", "iso-codes"},
		{"golang-1.19-src", "golang-1.19-go"},
		{"libllvm14", "llvm-14-dev", "libclang-cpp14", "libstd-rust-dev", "libnode108", "libicu72"},
	}
)

// debianImage is an image made of Debian packages.
type debianImage struct {
	registrytest.Image
	files, bytes int64 // what its layers hold: entries, and the content of files
}

// makeDebianImage downloads the packages into dir with apt and packs each list
// into a layer, gzipped as images are. It is an error when apt has them not.
func makeDebianImage(dir string, lists [][]string) (debianImage, error) {
	var img debianImage
	for i, list := range lists {
		debs := filepath.Join(dir, fmt.Sprint("debs", i))
		if err := os.MkdirAll(debs, 0o755); err != nil {
			return img, err
		}
		get := exec.Command("apt-get", append([]string{"download", "-q", "-o", "APT::Sandbox::User=root"}, list...)...)
		get.Dir = debs
		if out, err := get.CombinedOutput(); err != nil {
			return img, fmt.Errorf("apt-get download: %w: %s", err, lastLine(out))
		}
		raw, err := img.layerOf(debs)
		if err != nil {
			return img, err
		}
		img.Tars = append(img.Tars, raw)
		img.Blobs = append(img.Blobs, registrytest.Gzip(raw))
		if err := os.RemoveAll(debs); err != nil {
			return img, err
		}
	}
	return img, nil
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// layerOf packs the content of the packages in dir into one tar.
func (img *debianImage) layerOf(dir string) ([]byte, error) {
	debs, err := filepath.Glob(dir + "/*.deb")
	if err != nil {
		return nil, err
	}
	var raw bytes.Buffer
	w := tar.NewWriter(&raw)
	seen := map[string]bool{}
	for _, deb := range debs {
		cmd := exec.Command("dpkg-deb", "--fsys-tarfile", deb)
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		if err := img.add(w, tar.NewReader(out), seen); err != nil {
			return nil, fmt.Errorf("%s: %w", deb, err)
		}
		io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil {
			return nil, err
		}
	}
	err = w.Close()
	return raw.Bytes(), err
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
