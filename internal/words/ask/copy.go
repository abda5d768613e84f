package ask

// CopyIn says where in a container an archive is to be unpacked.
type CopyIn struct {
	Path string // a directory that exists, or a symbolic link to one
	// KeepKinds refuses to put a directory where something else is, and
	// something else where a directory is.
	KeepKinds bool
	// AsUser gives everything to the user that the container runs as, when it
	// was made with one; else owners are the archive's.
	AsUser bool
}
