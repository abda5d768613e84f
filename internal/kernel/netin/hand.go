package netin

import (
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// Known is where the programs of a namespace find a name server, as with Docker.
var Known = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 11}), 53)

const opHand = "hand over the sockets of"

// Box is a pair of connected sockets by which one process hands a namespace and
// its sockets to another: what is sent to the second waits in the first.
func Box() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fault.Wrap(fault.Exhausted, opHand, "a network namespace", err, "")
	}
	return os.NewFile(uintptr(fds[0]), "box"), os.NewFile(uintptr(fds[1]), "box"), nil
}

// Serve listens in a namespace on a port of Known's address, leads Known to it
// and puts all of it into a box.
func Serve(netns *os.File, port uint16, box int) error {
	s, err := Listen(netns, netip.AddrPortFrom(Known.Addr(), port))
	if err != nil {
		return err
	}
	defer s.Close()
	if err := Lead(netns, Known, port); err != nil {
		return err
	}
	rights := unix.UnixRights(int(netns.Fd()), int(s.UDP.Fd()), int(s.TCP.Fd()))
	return fault.Wrap(fault.Internal, opHand, netns.Name(), unix.Sendmsg(box, []byte{0}, rights, nil, 0), "")
}

// Take takes out what Serve has put in. It does not wait: an empty box is
// NotFound.
func Take(box *os.File) (netns *os.File, s Sockets, err error) {
	const count = 3
	oob := make([]byte, unix.CmsgSpace(4*count))
	n, noob, _, _, err := unix.Recvmsg(int(box.Fd()), make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	var fds []int
	if err == nil {
		list, _ := unix.ParseSocketControlMessage(oob[:noob])
		for _, m := range list {
			more, _ := unix.ParseUnixRights(&m)
			fds = append(fds, more...)
		}
	}
	if err != nil || n == 0 || len(fds) != count {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return nil, s, fault.New(fault.NotFound, opHand, "a network namespace", "nothing was handed over ("+strconv.Itoa(len(fds))+" descriptors)", "")
	}
	return os.NewFile(uintptr(fds[0]), "network namespace"), Sockets{UDP: os.NewFile(uintptr(fds[1]), "udp"), TCP: os.NewFile(uintptr(fds[2]), "tcp")}, nil
}
