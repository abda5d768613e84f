//go:build cgo

package snapshot

// dynamic says that the test program needs a dynamic loader, which the layers
// of the tests have not: with cgo, which the race detector needs, archive/tar
// links the C library for os/user.
const dynamic = true
