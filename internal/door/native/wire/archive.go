package wire

import "fief/internal/words/ask"

// The verbs about files in containers. ReadPath takes the file to write the tar
// to, WritePath the one to read it from.
const (
	StatPath  Verb = 64 + iota // (PathCall) → record.PathStat
	ReadPath                   // (PathCall) → record.PathStat, when all is written
	WritePath                  // (CopyInCall)
)

// PathCall names a file of a container.
type PathCall struct{ ID, Path string }

// CopyInCall says where a tar goes.
type CopyInCall struct {
	ID string
	ask.CopyIn
}
