package within

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/sysx"
	"fief/internal/words/idmap"
)

const capXattr = "security.capability"

// insideCaps is a file's capabilities as an archive has them: those of the
// container's root are of revision 2, which names no root. Nil for what means
// nothing in the container.
func insideCaps(raw []byte, m idmap.Map) []byte {
	if len(raw) < sysx.CapSize2 {
		return nil
	}
	switch revision := binary.LittleEndian.Uint32(raw) & sysx.CapRevisionMask; {
	case revision == sysx.CapRevision2 && len(raw) == sysx.CapSize2:
		return raw
	case revision == sysx.CapRevision3 && len(raw) == sysx.CapSize3:
		root := binary.LittleEndian.Uint32(raw[sysx.CapSize2:])
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
	if len(raw) < sysx.CapSize2 {
		return nil, unix.EINVAL
	}
	root := uint32(0)
	switch revision := binary.LittleEndian.Uint32(raw) & sysx.CapRevisionMask; {
	case revision == sysx.CapRevision2 && len(raw) == sysx.CapSize2:
	case revision == sysx.CapRevision3 && len(raw) == sysx.CapSize3:
		root = binary.LittleEndian.Uint32(raw[sysx.CapSize2:])
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
	out := make([]byte, sysx.CapSize2, sysx.CapSize3)
	copy(out, raw)
	head := binary.LittleEndian.Uint32(out)&^uint32(sysx.CapRevisionMask) | sysx.CapRevision2
	if named {
		head = head&^uint32(sysx.CapRevisionMask) | sysx.CapRevision3
		out = binary.LittleEndian.AppendUint32(out, root)
	}
	binary.LittleEndian.PutUint32(out, head)
	return out
}
