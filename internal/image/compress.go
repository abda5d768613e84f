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

	"fief/internal/words/fault"

	"github.com/klauspost/compress/gzip"
)

// A stream that unpacks to more than bombRatio times its size, beyond
// bombFree, is made to exhaust the disk: gzip's best is 1032, and no useful
// layer comes near.
const (
	bombRatio = 1000
	bombFree  = 2 << 30
)

// The compressions there are, by the bytes they start with (RFC 1952, RFC 8878).
var (
	gzipMagic  = []byte{0x1f, 0x8b, 0x08}
	zstdMagic  = []byte{0x28, 0xb5, 0x2f, 0xfd}
	xzMagic    = []byte{0xfd, '7', 'z', 'X', 'Z', 0}
	bzip2Magic = []byte("BZh")
)

// plainArchive is plainTar of a whole archive, which may be compressed with
// bzip2 as well: what is in it is stored anew. A layer is kept as it came, and
// bzip2 is none of the compressions that layers may have.
func plainArchive(ctx context.Context, r io.Reader, w *windows) (io.ReadCloser, error) {
	in := &counter{r: r}
	buffered := bufio.NewReaderSize(in, 128<<10)
	head, err := buffered.Peek(len(bzip2Magic))
	if err != nil && err != io.EOF {
		return nil, streamFault(err)
	}
	if bytes.HasPrefix(head, bzip2Magic) {
		return &unpacked{r: bzip2.NewReader(buffered), in: in, end: func() {}}, nil
	}
	plain, _, err := plainTar(ctx, buffered, w)
	return plain, err
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
		return nil, "", fault.New(fault.Unsupported, "unpack archive", "", "it is compressed with xz or bzip2", "use gzip, zstd or no compression, as by: xz -dc FILE | fief load")
	}
	return &unpacked{r: buffered, in: in, end: func() {}}, "application/vnd.oci.image.layer.v1.tar", nil
}

func streamFault(err error) error {
	var f *fault.Error
	if errors.As(err, &f) {
		return err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fault.New(fault.Corrupt, "unpack archive", "", "it is cut off", "")
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
