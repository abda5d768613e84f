package record

import "fief/internal/words/idmap"

// Mount is a mount point of a container.
type Mount struct {
	Kind        string // "bind", "tmpfs", "volume", "image"
	Name        string // of a volume; of an image as it was asked for
	Driver      string `json:",omitempty"` // of a volume
	Source      string // of a volume and an image, for showing alone
	Target      string
	ReadOnly    bool
	ReadOnlyTop bool `json:",omitempty"` // what is mounted below stays as it is
	Recursive   bool
	Propagation string
	NoExec      bool      `json:",omitempty"`
	NoSuid      bool      `json:",omitempty"`
	NoDev       bool      `json:",omitempty"`
	Chown       bool      `json:",omitempty"` // its files are given to the container's user at the first start
	Map         *MountMap `json:",omitempty"` // whose ids they appear with; nil: a bind's are the host's, a volume's the container's
	Subpath     string    `json:",omitempty"` // the directory of a volume or image that is meant

	TmpfsSize    int64
	TmpfsMode    uint32
	TmpfsExec    bool
	TmpfsOptions []string `json:",omitempty"`
	CreateSrc    bool     // a missing bind source is made

	NoCopy  bool     `json:",omitempty"` // volume: it is not filled from the image
	Ready   bool     `json:",omitempty"` // what the first start does to the files has been done
	Short   bool     `json:",omitempty"` // volume: asked for by -v
	Image   string   `json:",omitempty"` // id of an image
	Layers  []string `json:",omitempty"` // of that image, lowest first
	Implied bool     `json:",omitempty"` // the image asked for it, or another container
}

// MountMap says with which ids the files of a mount appear.
type MountMap struct {
	Kind string            // "userns": stored ids are the container's; "custom"; "match-user": the owner appears as User
	User string            `json:",omitempty"` // NAME, UID or UID:GID; empty: the container's
	UID  []idmap.MountSpan `json:",omitempty"` // custom; nil: the container's own map
	GID  []idmap.MountSpan `json:",omitempty"`
}
