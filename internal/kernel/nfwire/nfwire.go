// Package nfwire writes requests to nf_tables as the kernel reads them, for those
// who cannot afford a library that makes an object of every attribute: processes
// that every container pays for, and transactions of hundreds of elements.
package nfwire

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// Batch is requests that are carried out together or not at all (netlink(7),
// linux/netfilter/nfnetlink.h). The zero Batch is empty.
type Batch struct {
	b    []byte
	last int // where the last request begins
	seq  uint32
}

const (
	begin = 0x10 // NFNL_MSG_BATCH_BEGIN, of no subsystem
	end   = 0x11
	head  = unix.SizeofNlMsghdr + 4 // and a struct nfgenmsg
)

// Add appends a request of nf_tables (unix.NFT_MSG_…) with its attributes.
func (b *Batch) Add(kind, flags uint16, family byte, attributes []byte) {
	if len(b.b) == 0 {
		b.add(begin, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	}
	b.add(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags, family, 0, attributes)
}

func (b *Batch) add(kind, flags uint16, family byte, resource uint16, attributes []byte) {
	b.seq++
	b.last = len(b.b)
	b.b = binary.NativeEndian.AppendUint32(b.b, uint32(head+len(attributes)))
	b.b = binary.NativeEndian.AppendUint16(b.b, kind)
	b.b = binary.NativeEndian.AppendUint16(b.b, unix.NLM_F_REQUEST|flags)
	b.b = binary.NativeEndian.AppendUint32(b.b, b.seq)
	b.b = binary.NativeEndian.AppendUint32(b.b, 0)
	b.b = append(b.b, family, unix.NFNETLINK_V0)
	b.b = binary.BigEndian.AppendUint16(b.b, resource)
	b.b = append(b.b, attributes...) // which are padded
}

// wait bounds how long the kernel may take for a transaction, in seconds.
const wait = 10

// usual is what a socket sends at once without asking for more
// (net.core.wmem_default).
const usual = 64 << 10

// Commit sends the batch through a socket of NETLINK_NETFILTER and waits for what
// the kernel says of it: the first failure of any request, a unix.Errno, or that
// the last one was carried out, which is said only when all were
// (nfnetlink_rcv_batch). The socket is to have had no other use.
func (b *Batch) Commit(fd int) error {
	if len(b.b) == 0 {
		return nil
	}
	flags := b.b[b.last+6:]
	binary.NativeEndian.PutUint16(flags, binary.NativeEndian.Uint16(flags)|unix.NLM_F_ACK)
	asked := b.seq
	b.add(end, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	// A failure would repeat its request, however long (netlink(7), NETLINK_CAP_ACK).
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1); err != nil {
		return err
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: wait}); err != nil {
		return err
	}
	if len(b.b) > usual { // a message is one allocation, which must fit
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 2*len(b.b)); err != nil {
			return err
		}
	}
	if err := unix.Sendto(fd, b.b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	return answered(fd, asked)
}

func answered(fd int, last uint32) error {
	buf := make([]byte, 8192)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		for b := buf[:n]; len(b) >= head; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < head || size > len(b) {
				return unix.EBADMSG
			}
			if binary.NativeEndian.Uint16(b[4:]) == unix.NLMSG_ERROR {
				errno := -int32(binary.NativeEndian.Uint32(b[unix.SizeofNlMsghdr:]))
				if errno != 0 {
					return unix.Errno(errno)
				}
				if binary.NativeEndian.Uint32(b[8:]) == last {
					return nil
				}
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

// Attribute appends an attribute to a list of them.
func Attribute(b []byte, kind uint16, v []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofNlAttr+len(v)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, v...)
	return append(b, "\x00\x00\x00"[:-len(v)&3]...)
}

// Text appends an attribute that is a string.
func Text(b []byte, kind uint16, s string) []byte {
	return Attribute(b, kind, append([]byte(s), 0))
}

// Number appends an attribute that is a number, which nf_tables has in the order
// of the network.
func Number(b []byte, kind uint16, n uint32) []byte {
	return Attribute(b, kind, binary.BigEndian.AppendUint32(nil, n))
}

// Nest appends an attribute that is a list of attributes.
func Nest(b []byte, kind uint16, inner []byte) []byte {
	return Attribute(b, kind|unix.NLA_F_NESTED, inner)
}

// Open begins an attribute that is a list of what is appended until Close.
func Open(b []byte, kind uint16) (out []byte, at int) {
	return binary.NativeEndian.AppendUint16(append(b, 0, 0), kind|unix.NLA_F_NESTED), len(b)
}

// Close ends what Open has begun at a place.
func Close(b []byte, at int) { binary.NativeEndian.PutUint16(b[at:], uint16(len(b)-at)) }
