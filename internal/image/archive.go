package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
)

// What an archive of images may hold.
const (
	maxMembers   = 100_000
	maxMemory    = 32 << 20 // bytes of names
	maxSpool     = 1 << 40  // bytes of files
	maxJSON      = 16 << 20 // bytes of manifest.json
	maxLinkDepth = 8
	maxTrailing  = 64 << 20 // bytes after the end; tar pads to 10 KiB, to as much as 32 MiB with -b 65535
)

// archive is the files of an image archive, each in ingest/ until it becomes a
// blob or the archive is closed. Archives come as streams whose table of
// contents is often last, so that everything is written down first.
type archive struct {
	blobs *blobs
	files map[string]*member
	links map[string]string // symlinks and hard links: clean name → clean target
	bytes int64
	names int
}

type member struct {
	in     *ingest
	digest string
	size   int64
}

// readArchive writes down all of r, a tar of any compression known. On an
// error nothing of it stays.
func readArchive(ctx context.Context, b *blobs, r io.Reader) (*archive, error) {
	plain, err := plainArchive(ctx, &canceled{ctx, r}, b.windows)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	a := &archive{blobs: b, files: map[string]*member{}, links: map[string]string{}}
	if err := a.read(tar.NewReader(plain)); err != nil {
		a.close()
		return nil, err
	}
	if err := rest(plain); err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

// rest reads what follows the archive's end: padding, and the checksums of gzip
// and zstd. What goes on beyond all padding is no archive.
func rest(r io.Reader) error {
	n, err := io.CopyN(io.Discard, r, maxTrailing+1)
	if err == io.EOF {
		return nil
	}
	if n > maxTrailing {
		return fault.New(fault.Exhausted, "read image archive", "", fmt.Sprintf("it goes on for more than %d bytes after its end", maxTrailing), "")
	}
	return err
}

func (a *archive) read(t *tar.Reader) error {
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return archiveFault(err)
		}
		if err := a.take(h, t); err != nil {
			return err
		}
	}
}

func archiveFault(err error) error {
	var f *fault.Error
	if errors.As(err, &f) {
		return err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fault.New(fault.Corrupt, "read image archive", "", "it is cut off", "")
	}
	return fault.Wrap(fault.Corrupt, "read image archive", "", err, "")
}

func (a *archive) take(h *tar.Header, r io.Reader) error {
	name := cleanMember(h.Name)
	a.names += len(name) + len(h.Linkname) + 128
	if len(a.files)+len(a.links) >= maxMembers || a.names > maxMemory {
		return fault.New(fault.Exhausted, "read image archive", "", "it has too many files", "")
	}
	switch h.Typeflag {
	case tar.TypeSymlink:
		a.links[name] = cleanMember(path.Join(path.Dir(name), h.Linkname))
	case tar.TypeLink:
		a.links[name] = cleanMember(h.Linkname)
	case tar.TypeReg, tar.TypeGNUSparse:
		return a.spool(name, h.Size, r)
	}
	return nil
}

// cleanMember makes a name a key of the map: it never becomes a path.
func cleanMember(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

func (a *archive) spool(name string, size int64, r io.Reader) error {
	if a.bytes += size; a.bytes > maxSpool {
		return fault.New(fault.Exhausted, "read image archive", "", "its files are larger than a tebibyte", "")
	}
	in, err := a.blobs.ingest()
	if err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(in, sum), r)
	if err != nil {
		in.abort()
		return archiveFault(err)
	}
	if old := a.files[name]; old != nil {
		old.in.abort()
	}
	failpoint.Hit("archive-spooled")
	// Closed until it is needed: an archive may have more files than there are descriptors.
	in.file.Close()
	a.files[name] = &member{in, sumOf(sum), n}
	return nil
}

// find follows links inside the archive.
func (a *archive) find(name string) (*member, error) {
	name = cleanMember(name)
	for range maxLinkDepth {
		if m := a.files[name]; m != nil {
			return m, nil
		}
		next, ok := a.links[name]
		if !ok {
			break
		}
		name = next
	}
	return nil, fault.New(fault.Corrupt, "read image archive", "", fmt.Sprintf("%q is not in it", short(name)), "")
}

// small returns the content of a member of at most limit bytes.
func (a *archive) small(name string, limit int64) ([]byte, error) {
	m, err := a.find(name)
	if err != nil {
		return nil, err
	}
	if m.size > limit {
		return nil, fault.New(fault.Corrupt, "read image archive", "", fmt.Sprintf("%q is larger than such a file can be", short(name)), "")
	}
	raw, err := a.blobs.root.ReadFile(m.path())
	return raw, diskFault("read", m.path(), err)
}

// path is where the member is: it may have become a blob.
func (m *member) path() string {
	if m.in.done {
		return blobPath(m.digest)
	}
	return m.in.name
}

// keep makes the member a blob.
func (a *archive) keep(m *member) error {
	if m.in.done {
		return nil
	}
	f, err := a.blobs.root.OpenFile(m.in.name, os.O_RDWR, 0)
	if err != nil {
		return diskFault("open", m.in.name, err)
	}
	defer f.Close()
	m.in.file = f
	return m.in.commit(m.digest)
}

func (a *archive) close() {
	for _, m := range a.files {
		m.in.abort()
	}
}

// canceled ends a read of many files with the context.
type canceled struct {
	ctx context.Context
	r   io.Reader
}

func (c *canceled) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, fault.Wrap(fault.Canceled, "read", "archive", err, "")
	}
	return c.r.Read(p)
}
