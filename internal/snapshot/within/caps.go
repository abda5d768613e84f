package within

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"fief/internal/words/idmap"
)

const capXattr = "security.capability"

// The layout of security.capability, all little-endian (linux/capability.h,
// struct vfs_ns_cap_data): revision and flags, four words of capabilities and,
// in revision 3, the user id of the root that they are for.
const (
	capRevisionMask = 0xff000000
	capRevision2    = 0x02000000
	capRevision3    = 0x03000000
	capSize2        = 20
	capSize3        = 24
)

// insideCaps is a file's capabilities as an archive has them: those of the
// container's root are of revision 2, which names no root. Nil for what means
// nothing in the container.
func insideCaps(raw []byte, m idmap.Map) []byte {
	if len(raw) < capSize2 {
		return nil
	}
	switch revision := binary.LittleEndian.Uint32(raw) & capRevisionMask; {
	case revision == capRevision2 && len(raw) == capSize2:
		return raw
	case revision == capRevision3 && len(raw) == capSize3:
		root := binary.LittleEndian.Uint32(raw[capSize2:])
		if !m.IsZero() {
			in, ok := m.ToInside(idmap.Host(root))
			if !ok {
				return nil
			}
			root = uint32(in)
		}
		return withRoot(raw, root, root != 0)
	}
	return nil
}

// outsideCaps is the reverse: what a container's file gets is for the root of
// its user namespace, never for the host's.
func outsideCaps(raw []byte, m idmap.Map) ([]byte, error) {
	if len(raw) < capSize2 {
		return nil, unix.EINVAL
	}
	root := uint32(0)
	switch revision := binary.LittleEndian.Uint32(raw) & capRevisionMask; {
	case revision == capRevision2 && len(raw) == capSize2:
	case revision == capRevision3 && len(raw) == capSize3:
		root = binary.LittleEndian.Uint32(raw[capSize2:])
	default:
		return nil, unix.EINVAL
	}
	host, ok := outside(m, int(root))
	if !ok {
		return nil, unix.EOVERFLOW
	}
	return withRoot(raw, host, host != 0), nil
}

func withRoot(raw []byte, root uint32, named bool) []byte {
	out := make([]byte, capSize2, capSize3)
	copy(out, raw)
	head := binary.LittleEndian.Uint32(out)&^uint32(capRevisionMask) | capRevision2
	if named {
		head = head&^uint32(capRevisionMask) | capRevision3
		out = binary.LittleEndian.AppendUint32(out, root)
	}
	binary.LittleEndian.PutUint32(out, head)
	return out
}
