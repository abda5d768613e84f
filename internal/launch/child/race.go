//go:build race

package child

// Available says whether Fork may be called: the race detector's runtime does
// not survive a fork without exec.
const Available = false
