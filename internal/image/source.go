package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// archiveSource is an archive that was written down.
type archiveSource struct {
	s *Store
	*archive
}

func (a archiveSource) has(name string) bool {
	_, err := a.find(name)
	return err == nil
}

func (a archiveSource) open(name string) (*os.File, error) {
	m, err := a.find(name)
	if err != nil {
		return nil, err
	}
	f, err := a.s.root.Open(m.path())
	return f, diskFault("open", name, err)
}

func (a archiveSource) layer(ctx context.Context, h *hold, name string) (ocispec.Descriptor, error) {
	m, err := a.find(name)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	h.blob(m.digest)
	unlock, err := a.s.busy.lock(ctx, "blob "+m.digest)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer unlock()
	if err := a.keep(m); err != nil {
		return ocispec.Descriptor{}, err
	}
	return a.s.describe(m.digest, m.size)
}

// describe makes a layer's descriptor of a blob of the store.
func (s *Store) describe(d string, size int64) (ocispec.Descriptor, error) {
	f, err := s.blobs.open(d)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer f.Close()
	tar, mediaType, err := plainTar(context.Background(), f, nil)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	tar.Close()
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.Digest(d), Size: size}, nil
}

// LoadLayout loads every image of the OCI layout in the directory dir, which
// stays as it is. See Load.
func (s *Store) LoadLayout(ctx context.Context, want ask.LoadImages, dir string, tell func(record.Progress)) ([]record.Image, error) {
	if err := checkPlatforms(want.Platforms); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fault.Wrap(diskClass(err), "load images from", dir, err, "")
	}
	defer root.Close()
	return s.load(ctx, want, dirSource{s, root}, newTeller(tell))
}

// dirSource is a directory; os.Root keeps symlinks in it from leading out.
type dirSource struct {
	s    *Store
	root *os.Root
}

func (d dirSource) has(name string) bool {
	_, err := d.root.Stat(name)
	return err == nil
}

func (d dirSource) open(name string) (*os.File, error) {
	f, err := d.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO would make it wait
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Corrupt, "load images", name, "it is missing", "")
	}
	if err != nil {
		return nil, fault.Wrap(diskClass(err), "load images", name, err, "")
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, fault.New(fault.Corrupt, "load images", name, "it is not a regular file", "")
	}
	return f, nil
}

func (d dirSource) small(name string, limit int64) ([]byte, error) {
	f, err := d.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, diskFault("read", name, err)
	}
	if int64(len(raw)) > limit {
		return nil, fault.New(fault.Corrupt, "load images", name, "it is larger than such a file can be", "")
	}
	return raw, nil
}

func (d dirSource) layer(ctx context.Context, h *hold, name string) (ocispec.Descriptor, error) {
	f, err := d.open(name)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer f.Close()
	in, err := d.s.blobs.ingest()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer in.abort()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(in, sum), &canceled{ctx, f})
	if err != nil {
		return ocispec.Descriptor{}, fault.Wrap(fault.ClassOf(err), "load layer", name, err, fault.HintOf(err))
	}
	got := sumOf(sum)
	h.blob(got)
	unlock, err := d.s.busy.lock(ctx, "blob "+got)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer unlock()
	if err := in.commit(got); err != nil {
		return ocispec.Descriptor{}, err
	}
	return d.s.describe(got, n)
}
