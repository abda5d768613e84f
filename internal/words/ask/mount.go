package ask

import "fief/internal/words/record"

// MountKind is the closed set of mounts a user can ask for.
type MountKind string

// The kinds. Volume is a named or anonymous volume, Image the files of an image,
// which cannot be written.
const (
	Bind   MountKind = "bind"
	Tmpfs  MountKind = "tmpfs"
	Volume MountKind = "volume"
	Image  MountKind = "image"
)

// Mount is one -v, --mount or --tmpfs.
type Mount struct {
	Kind        MountKind
	Source      string // host path (bind), volume name (volume; empty: anonymous) or image (image)
	Target      string // absolute path in the container
	ReadOnly    bool
	ReadOnlyTop bool   // with ReadOnly: what is mounted below stays as it is
	Recursive   bool   // bind: bring submounts along (the default of -v and --mount)
	Propagation string // "", "rprivate", "rslave", "rshared", "runbindable", or one of these without r
	CreateSrc   bool   // -v makes a missing source directory; --mount refuses
	NoExec      bool
	NoSuid      bool
	NoDev       bool
	Chown       bool             // U: the files are given to the container's user, for good
	Map         *record.MountMap // whose ids the files appear with; nil: a bind's are the host's, a volume's the container's
	Subpath     string           // volume, image: the directory below it that is meant

	TmpfsSize    int64    // bytes; 0: no limit of its own
	TmpfsMode    uint32   // 0: 1777
	TmpfsExec    bool     // without: noexec
	TmpfsOptions []string // of tmpfs(5) and mount(8) besides: size= in %, uid=, gid=, nr_inodes=, nr_blocks=, huge=, mpol=, noatime …

	NoCopy  bool              // volume: a new one is not filled from the image
	Short   bool              // volume: asked for by -v
	Driver  string            // volume that is yet to be made; empty: local
	Options map[string]string // of its driver
	Labels  map[string]string // of the volume
}

// VolumesFrom is one --volumes-from: the mounts of a container, by name or id.
type VolumesFrom struct {
	Container string
	ReadOnly  bool
}

// String is what ParseVolumesFrom reads.
func (v VolumesFrom) String() string {
	if v.ReadOnly {
		return v.Container + ":ro"
	}
	return v.Container
}

// Remove says how a container is removed.
type Remove struct {
	Force   bool // kill it first if it runs
	Volumes bool // with the anonymous volumes that no other container has
}
