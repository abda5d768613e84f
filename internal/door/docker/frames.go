package docker

import (
	"encoding/binary"
	"io"
	"sync"
)

// The streams of Docker's multiplexed format, "stdcopy": eight bytes
// {stream, 0, 0, 0, length as big-endian uint32} before each piece.
const (
	streamOut byte = 1
	streamErr byte = 2
	streamSys byte = 3 // the client turns it into an error of its own

	frameHeader = 8
	pieceSize   = 32 << 10 // what one read of a pipe returns at most
)

// muxer writes pieces of several streams to one writer, framed or raw. It may
// be used by several goroutines.
type muxer struct {
	mu     sync.Mutex
	w      io.Writer
	framed bool
}

// put sends piece, which has frameHeader unused bytes in front of the payload.
// Header and payload go out in one write.
func (m *muxer) put(stream byte, piece []byte) error {
	if !m.framed {
		piece = piece[frameHeader:]
	} else {
		head := piece[:frameHeader]
		clear(head)
		head[0] = stream
		binary.BigEndian.PutUint32(head[4:], uint32(len(piece)-frameHeader))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.w.Write(piece)
	return err
}

// say sends a text as one piece.
func (m *muxer) say(stream byte, text string) error {
	return m.put(stream, append(make([]byte, frameHeader), text...))
}

// pump sends all of src, until its end or until the client takes no more.
func (m *muxer) pump(stream byte, src io.Reader) error {
	piece := make([]byte, frameHeader+pieceSize)
	for {
		n, err := src.Read(piece[frameHeader:])
		if n > 0 {
			if err := m.put(stream, piece[:frameHeader+n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
