//go:build !cgo

package snapshot

const dynamic = false
