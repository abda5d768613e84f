// Package archtest holds the project to docs/map.md: who may import whom, what
// a binary may link, and what a package must look like.
package archtest
