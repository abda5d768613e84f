package image

import (
	"context"
	"io"
)

// Plain returns the tar that r holds, uncompressed: none, gzip, zstd, xz and
// bzip2 are told apart by the bytes they begin with. Reading is Exhausted for
// what unpacks to a multiple of its size that no honest archive does, Unsupported
// for a window of zstd's or a dictionary of xz's above 8 MiB: whoever sends it may
// take his time. The caller closes it; r stays the caller's.
func Plain(r io.Reader) (io.ReadCloser, error) {
	return plainArchive(context.Background(), r, nil)
}
