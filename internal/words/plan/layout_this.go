//go:build !otherplan

package plan

// later is what makes a build of another layout out of this source.
const later = 0
