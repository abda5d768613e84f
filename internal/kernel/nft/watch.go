package nft

import (
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Watch calls lost whenever something of the table may have been removed, by
// fief or by others, until stop is closed. It returns at once. Every element that
// comes or goes is told of as well, to be passed over: a container with a hundred
// ports is four hundred messages, so they are read without a library.
func (name Table) Watch(stop <-chan struct{}, lost func()) error {
	const op = "watch the tables of networks"
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return refusal(op, err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)}); err != nil {
		unix.Close(fd)
		return refusal(op, err)
	}
	f := os.NewFile(uintptr(fd), "nf_tables")
	conn, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return refusal(op, err)
	}
	go func() {
		<-stop
		f.Close()
	}()
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n := 0
			var failed error
			if err := conn.Read(func(fd uintptr) bool {
				n, _, failed = unix.Recvfrom(int(fd), buf, unix.MSG_TRUNC)
				return !errors.Is(failed, unix.EAGAIN) && !errors.Is(failed, unix.EINTR)
			}); err != nil {
				return // closed
			}
			switch {
			case errors.Is(failed, unix.ENOBUFS), n > len(buf): // there was more than the socket, or the buffer, holds
				lost()
			case failed != nil:
				return
			case name.lost(buf[:n]):
				lost()
			}
		}
	}()
	return nil
}

// lost reports whether one of the messages tells of a removal from fief's table.
// Elements come and go with every container and are not looked at. The table's
// name is the first attribute of all of them (linux/netfilter/nf_tables.h).
func (name Table) lost(b []byte) bool {
	const head = unix.SizeofNlMsghdr + 4 // and a struct nfgenmsg
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return true // nothing is known of what follows
		}
		switch binary.NativeEndian.Uint16(b[4:]) {
		case unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELTABLE, unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELCHAIN,
			unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELRULE, unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELSET:
			if name.isFirst(b[min(head, size):size]) {
				return true
			}
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return false
}

// isFirst: the first attribute is the table's name.
func (name Table) isFirst(b []byte) bool {
	if len(b) < unix.SizeofNlAttr {
		return false
	}
	size := int(binary.NativeEndian.Uint16(b))
	if size < unix.SizeofNlAttr || size > len(b) {
		return false
	}
	return string(b[unix.SizeofNlAttr:size]) == string(name)+"\x00"
}
