package image

import "io"

// Plain returns the tar that r holds, uncompressed: none, gzip, zstd, xz and
// bzip2 are told apart by the bytes they begin with. Reading is Exhausted for
// what unpacks to a multiple of its size that no honest archive does. The caller
// closes it; r stays the caller's.
func Plain(r io.Reader) (io.ReadCloser, error) {
	return plainArchive(r)
}
