//go:build race

package snapshot

// dynamic says that the test program needs a dynamic loader, which the layers
// of the tests have not: the race detector links with cgo.
const dynamic = true
