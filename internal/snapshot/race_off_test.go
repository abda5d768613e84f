//go:build !race

package snapshot

const dynamic = false
