package record

// ChangeKind says what a container did to a path, in the numbers of Docker's
// API.
type ChangeKind uint8

// The kinds.
const (
	Modified ChangeKind = iota
	Added
	Deleted
)

// String is the letter that `docker diff` prints.
func (k ChangeKind) String() string {
	switch k {
	case Added:
		return "A"
	case Deleted:
		return "D"
	}
	return "C"
}

// Change is one path of a container's root filesystem that is not as in its
// image.
type Change struct {
	Kind ChangeKind
	Path string // absolute, as the container sees it
}
