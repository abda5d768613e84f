//go:build !weak

package main

// sealing is off in builds with the tag "weak" alone, on which a test shows what
// it is good for.
const sealing = true
