package image

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
	"fief/internal/words/ref"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	ingestDir = "ingest"
	blobDir   = "blobs/sha256"
)

// blobs is the OCI image layout at the data root.
type blobs struct {
	root    *os.Root
	windows *windows
}

// prepare makes the directories and throws away unfinished downloads. It takes
// no room where it has been before.
func (b *blobs) prepare() error {
	for _, dir := range []string{ingestDir, blobDir} {
		if err := b.root.MkdirAll(dir, 0o700); err != nil {
			return diskFault("make", dir, err)
		}
	}
	left, err := fs.ReadDir(b.root.FS(), ingestDir)
	if err != nil {
		return diskFault("list", ingestDir, err)
	}
	for _, e := range left {
		if err := b.root.RemoveAll(ingestDir + "/" + e.Name()); err != nil {
			return diskFault("sweep", ingestDir, err)
		}
	}
	raw, _ := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if old, err := b.root.ReadFile(ocispec.ImageLayoutFile); err == nil && string(old) == string(raw) {
		return nil
	}
	return b.replace(ocispec.ImageLayoutFile, raw)
}

// sweep removes every blob that is not used.
func (b *blobs) sweep(used map[string]bool) error {
	dir, err := b.root.Open(blobDir)
	if err != nil {
		return diskFault("list", blobDir, err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return diskFault("list", blobDir, err)
	}
	for _, name := range names {
		if used["sha256:"+name] {
			continue
		}
		if err := b.root.RemoveAll(blobDir + "/" + name); err != nil {
			return diskFault("sweep blob", name, err)
		}
	}
	return nil
}

func (b *blobs) writeIndex(manifests []ocispec.Descriptor) error {
	if manifests == nil {
		manifests = []ocispec.Descriptor{}
	}
	raw, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: manifests,
	})
	if err != nil {
		return fault.Wrap(fault.Internal, "write", ocispec.ImageIndexFile, err, "")
	}
	return b.replace(ocispec.ImageIndexFile, raw)
}

// replace puts raw at name. It is not synced: both files written so are made
// anew by every Open.
func (b *blobs) replace(name string, raw []byte) error {
	in, err := b.ingest()
	if err != nil {
		return err
	}
	defer in.abort()
	if _, err := in.Write(raw); err != nil {
		return err
	}
	failpoint.Hit("layout-written")
	if err := b.root.Rename(in.name, name); err != nil {
		return diskFault("rename into", name, err)
	}
	in.done = true
	return nil
}

// path of a digest that isDigest has accepted: 64 hex digits, nothing else.
func blobPath(digest string) string { return blobDir + "/" + strings.TrimPrefix(digest, "sha256:") }

// has reports whether the blob is there with that size.
func (b *blobs) has(digest string, size int64) bool {
	st, err := b.root.Lstat(blobPath(digest))
	return err == nil && st.Mode().IsRegular() && st.Size() == size
}

func (b *blobs) open(digest string) (*os.File, error) {
	f, err := b.root.Open(blobPath(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Corrupt, "open blob", digest, "it is missing", "pull the image again")
	}
	return f, diskFault("open blob", digest, err)
}

// small returns the whole blob, or nil when it is not there, larger than limit
// or damaged.
func (b *blobs) small(digest string, limit int64) []byte {
	st, err := b.root.Lstat(blobPath(digest))
	if err != nil || !st.Mode().IsRegular() || st.Size() > limit {
		return nil
	}
	raw, err := b.root.ReadFile(blobPath(digest))
	if err != nil || digestOf(raw) != digest {
		return nil
	}
	return raw
}

func (b *blobs) remove(digest string) error {
	failpoint.Hit("blob-removing")
	err := b.root.Remove(blobPath(digest))
	failpoint.Hit("blob-removed")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return diskFault("remove blob", digest, err)
}

// add stores raw under its digest.
func (b *blobs) add(digest string, raw []byte) error {
	in, err := b.ingest()
	if err != nil {
		return err
	}
	defer in.abort()
	if _, err := in.Write(raw); err != nil {
		return err
	}
	return in.commit(digest)
}

// ingest begins a file that is nothing until it is committed. The caller
// aborts it in any case; after a commit that does nothing.
func (b *blobs) ingest() (*ingest, error) {
	name := ingestDir + "/" + ref.NewID()
	f, err := b.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	failpoint.Hit("ingest-begun")
	if err != nil {
		return nil, diskFault("make a file in", ingestDir, err)
	}
	return &ingest{blobs: b, file: f, name: name}, nil
}

type ingest struct {
	blobs *blobs
	file  *os.File
	name  string
	done  bool
}

func (in *ingest) Write(p []byte) (int, error) {
	n, err := in.file.Write(p)
	return n, diskFault("write below", ingestDir, err)
}

// again opens the file once more, for reading.
func (in *ingest) again() (*os.File, error) {
	f, err := in.blobs.root.Open(in.name)
	return f, diskFault("open a file in", ingestDir, err)
}

// Restart forgets what was written.
func (in *ingest) Restart() error {
	if _, err := in.file.Seek(0, 0); err != nil {
		return diskFault("rewind a file in", ingestDir, err)
	}
	return diskFault("cut a file in", ingestDir, in.file.Truncate(0))
}

// commit makes the file the blob of that digest, which the caller has checked:
// first the content durable, then the name.
func (in *ingest) commit(digest string) error {
	failpoint.Hit("blob-written")
	if err := in.file.Sync(); err != nil {
		return diskFault("sync blob", digest, err)
	}
	failpoint.Hit("blob-synced")
	if err := in.blobs.root.Rename(in.name, blobPath(digest)); err != nil {
		return diskFault("name blob", digest, err)
	}
	in.done = true
	failpoint.Hit("blob-named")
	dir, err := in.blobs.root.Open(blobDir)
	if err != nil {
		return diskFault("open", blobDir, err)
	}
	defer dir.Close()
	return diskFault("sync", blobDir, dir.Sync())
}

func (in *ingest) abort() {
	in.file.Close()
	if !in.done {
		in.blobs.root.Remove(in.name) // what stays is swept by the next Open
	}
}

func diskFault(op, name string, err error) error {
	hint := ""
	class := diskClass(err)
	if class == fault.Exhausted {
		hint = "free some space below the data root"
	}
	return fault.Wrap(class, op, name, err, hint)
}

func diskClass(err error) fault.Class {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fault.Exhausted
	case errors.Is(err, fs.ErrPermission):
		return fault.Denied
	case errors.Is(err, fs.ErrNotExist):
		return fault.NotFound
	}
	return fault.Internal
}
