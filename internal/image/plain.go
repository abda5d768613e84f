package image

import (
	"context"
	"io"
)

// Plain returns the tar that r holds, uncompressed: none, gzip and zstd are told
// apart by the bytes they begin with. Unsupported for xz and bzip2; reading is
// Exhausted for what unpacks to a multiple of its size that no honest archive
// does, Unsupported for a window of zstd's above 8 MiB: whoever sends it may take
// his time. The caller closes it; r stays the caller's.
func Plain(r io.Reader) (io.ReadCloser, error) {
	plain, _, err := plainTar(context.Background(), r, nil)
	return plain, err
}
