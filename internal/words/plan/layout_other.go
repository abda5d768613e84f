//go:build otherplan

package plan

// later makes of this source a build whose plans no other build can carry out,
// as one before or after a change of the layout: for tests of both side by side.
const later = 1
