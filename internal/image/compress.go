package image

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"fief/internal/words/fault"

	"github.com/klauspost/compress/gzip"
	"github.com/therootcompany/xz"
)

// A stream that unpacks to more than bombRatio times its size, beyond
// bombFree, is made to exhaust the disk: gzip's best is 1032, and no useful
// layer comes near.
const (
	bombRatio = 1000
	bombFree  = 2 << 30
)

// The compressions there are, by the bytes they start with (RFC 1952, RFC 8878,
// the .xz file format, bzip2).
var (
	gzipMagic  = []byte{0x1f, 0x8b, 0x08}
	zstdMagic  = []byte{0x28, 0xb5, 0x2f, 0xfd}
	xzMagic    = []byte{0xfd, '7', 'z', 'X', 'Z', 0}
	bzip2Magic = []byte("BZh")
)

// maxDictionary is what `xz -9` needs and smallDictionary what `xz -6` does, the
// default; a header may ask for 4 GiB, all at once.
const (
	maxDictionary   = 64 << 20
	smallDictionary = 8 << 20
)

// foreign reports whether what comes is compressed with xz or bzip2, which no
// layer may have (OCI image spec, "Image Layer Filesystem Changeset"): it is
// unpacked, and what was in it is stored anew.
func foreign(r *bufio.Reader) (bool, error) {
	head, err := r.Peek(len(xzMagic))
	if err != nil && err != io.EOF {
		return false, streamFault(err)
	}
	return bytes.HasPrefix(head, xzMagic) || bytes.HasPrefix(head, bzip2Magic), nil
}

// plainArchive is plainTar of what is not kept as it came, and may be compressed
// with xz and bzip2 as well.
func plainArchive(ctx context.Context, r io.Reader, w *windows) (io.ReadCloser, error) {
	in := &counter{r: r}
	buffered := bufio.NewReaderSize(in, 128<<10)
	other, err := foreign(buffered)
	if err != nil {
		return nil, err
	}
	if !other {
		plain, _, err := plainTar(ctx, buffered, w)
		return plain, err
	}
	if head, _ := buffered.Peek(len(bzip2Magic)); bytes.Equal(head, bzip2Magic) {
		return &unpacked{r: bzip2.NewReader(buffered), in: in, end: func() {}}, nil
	}
	return plainXZ(ctx, buffered, in, w)
}

// plainXZ takes as much of w as the largest dictionary; without it there are
// small ones only.
func plainXZ(ctx context.Context, r io.Reader, in *counter, w *windows) (io.ReadCloser, error) {
	size, end := uint32(smallDictionary), func() {}
	if w != nil {
		if err := w.free.Acquire(ctx, maxDictionary); err != nil {
			return nil, fault.Wrap(fault.Canceled, "unpack archive", "", err, "")
		}
		size, end = maxDictionary, sync.OnceFunc(func() { w.free.Release(maxDictionary) })
	}
	z, err := xz.NewReader(r, size)
	if err != nil {
		end()
		return nil, streamFault(err)
	}
	return &unpacked{r: z, in: in, end: end}, nil
}

// plainTar returns what r holds, uncompressed, and the media type r would have
// as a layer. The bytes decide, not what anybody says about them. The reader's
// errors are faults. w shares out the memory for it; nil gives none beyond what
// every decoder must have (smallWindow).
func plainTar(ctx context.Context, r io.Reader, w *windows) (io.ReadCloser, string, error) {
	in := &counter{r: r}
	buffered := bufio.NewReaderSize(in, 128<<10)
	head, err := buffered.Peek(6)
	if err != nil && err != io.EOF {
		return nil, "", streamFault(err)
	}
	switch {
	case bytes.HasPrefix(head, gzipMagic):
		z, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, "", streamFault(err)
		}
		return &unpacked{r: z, in: in, end: func() { z.Close() }}, "application/vnd.oci.image.layer.v1.tar+gzip", nil
	case bytes.HasPrefix(head, zstdMagic):
		z := &windowed{ctx: ctx, in: buffered, windows: w}
		return &unpacked{r: z, in: in, end: z.close}, "application/vnd.oci.image.layer.v1.tar+zstd", nil
	case bytes.HasPrefix(head, xzMagic), bytes.HasPrefix(head, bzip2Magic):
		return nil, "", fault.New(fault.Unsupported, "unpack archive", "", "a layer of an OCI image cannot be compressed with xz or bzip2", "use gzip, zstd or no compression")
	}
	return &unpacked{r: buffered, in: in, end: func() {}}, "application/vnd.oci.image.layer.v1.tar", nil
}

func streamFault(err error) error {
	var f *fault.Error
	if errors.As(err, &f) {
		return err
	}
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fault.New(fault.Corrupt, "unpack archive", "", "it is cut off", "")
	case errors.Is(err, xz.ErrMemlimit):
		return fault.New(fault.Exhausted, "unpack archive", "", fmt.Sprintf("its dictionary is larger than %d MiB", maxDictionary>>20), "compress it with xz -9 or less")
	case errors.Is(err, xz.ErrOptions), errors.Is(err, xz.ErrUnsupportedCheck):
		return fault.Wrap(fault.Unsupported, "unpack archive", "", err, "compress it with the defaults of xz")
	}
	return fault.Wrap(fault.Corrupt, "unpack archive", "", err, "")
}

// counter counts, and marks errors of the disk or the client, so that they are
// told apart from what is wrong with the stream itself.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	var f *fault.Error
	if err == nil || err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &f) {
		return n, err
	}
	return n, fault.Wrap(fault.Unavailable, "read archive", "", err, "")
}

// unpacked is an uncompressed stream, watched for bombs.
type unpacked struct {
	r   io.Reader
	in  *counter
	out int64
	end func()
}

func (u *unpacked) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	u.out += int64(n)
	if u.out > bombFree && u.out/bombRatio > u.in.n {
		return n, fault.New(fault.Exhausted, "unpack archive", "", fmt.Sprintf("it unpacks to more than %d times its size", bombRatio),
			"the limit protects the host from archives made to exhaust it")
	}
	if err != nil && err != io.EOF {
		err = streamFault(err)
	}
	return n, err
}

func (u *unpacked) Close() error {
	u.end()
	return nil
}

// checked ends with a fault instead of io.EOF when what was read does not have
// the digest wanted.
type checked struct {
	r    io.Reader
	sum  hash.Hash
	want string
}

func newChecked(r io.Reader, want string) *checked { return &checked{r, sha256.New(), want} }

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.sum.Write(p[:n])
	if err != io.EOF {
		return n, err
	}
	if got := sumOf(c.sum); got != c.want {
		return n, fault.New(fault.Corrupt, "verify layer", c.want, "its content has digest "+got, "the image is damaged or was put together wrongly")
	}
	return n, io.EOF
}

func sumOf(h hash.Hash) string { return fmt.Sprintf("sha256:%x", h.Sum(nil)) }
