package netin

import (
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// wordsMax bounds what is said of a failure.
const wordsMax = 4 << 10

const opOffer = "have connected"

// Offer puts the network namespace of a process into a box, for somebody who
// connects it, and waits until that is done: however long it takes, or until the
// other end of the box is closed. The error is the other's.
func Offer(netns *os.File, pid, box int) error {
	number := binary.NativeEndian.AppendUint32(nil, uint32(pid))
	if err := unix.Sendmsg(box, number, unix.UnixRights(int(netns.Fd())), nil, 0); err != nil {
		return fault.Wrap(fault.Internal, opOffer, netns.Name(), err, "")
	}
	b, _, err := receive(box, nil)
	if err != nil {
		return fault.Wrap(fault.Internal, opOffer, netns.Name(), err, "")
	}
	switch {
	case len(b) == 0:
		return fault.New(fault.Unavailable, opOffer, netns.Name(), "the daemon has ended meanwhile", "")
	case b[0] == 0:
		return nil
	}
	return fault.Say(fault.Class(b[0]-1), string(b[1:]))
}

// Await waits for a namespace that is offered by way of a box. NotFound: its other
// end was closed.
func Await(box *os.File) (netns *os.File, pid int, err error) {
	oob := make([]byte, unix.CmsgSpace(4))
	b, noob, err := receive(int(box.Fd()), oob)
	if err != nil {
		return nil, 0, fault.Wrap(fault.Internal, "wait for", "a network namespace", err, "")
	}
	var fds []int
	list, _ := unix.ParseSocketControlMessage(oob[:noob])
	for _, m := range list {
		more, _ := unix.ParseUnixRights(&m)
		fds = append(fds, more...)
	}
	if len(b) != 4 || len(fds) != 1 {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return nil, 0, fault.New(fault.NotFound, "wait for", "a network namespace", "none was offered", "")
	}
	return os.NewFile(uintptr(fds[0]), "network namespace"), int(binary.NativeEndian.Uint32(b)), nil
}

// Answer tells the one who has offered a namespace what became of it.
func Answer(box *os.File, failure error) error {
	b := []byte{0}
	if failure != nil {
		words := failure.Error()
		if len(words) > wordsMax {
			words = words[:wordsMax]
		}
		b = append([]byte{byte(fault.ClassOf(failure)) + 1}, words...)
	}
	return fault.Wrap(fault.Unavailable, opOffer, "a network namespace", unix.Sendmsg(int(box.Fd()), b, nil, nil, unix.MSG_NOSIGNAL), "")
}

// receive waits for one message; empty: the other end is closed.
func receive(box int, oob []byte) ([]byte, int, error) {
	b := make([]byte, wordsMax+1)
	for {
		p := []unix.PollFd{{Fd: int32(box), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, -1); err != nil && err != unix.EINTR {
			return nil, 0, err
		}
		n, noob, _, _, err := unix.Recvmsg(box, b, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if err == unix.ECONNRESET {
			return nil, 0, nil
		}
		return b[:max(n, 0)], noob, err
	}
}
