// Package engine holds the verbs: pull, create, start, stop, kill, exec,
// remove, recover. It asks the rooms, one after another, and hands values from
// one to the next; it knows no system call, no protocol and no flag.
package engine

import (
	"os"
	"time"

	"fief/internal/monitor/wire"
	"fief/internal/words/record"
)

// Created is the answer to a create.
type Created struct {
	ID       string
	Warnings []string
}

// Attach connects a client with a container or an exec session. The engine and
// the monitor duplicate what they need: the caller keeps its descriptors and
// closes them. A nil file is not attached. When the streams have ended, or the
// client has detached, the monitor closes its copies, which is how a reader of
// a pipe given here learns of it. When Alive is a socket it gets one byte
// before it is closed as the last: AttachEnded when the process has ended.
//
// Alive is one end of a socket pair, or of a pipe, whose other end the client
// holds for as long as it lives: when it reads as end of file the monitor
// drops the attachment, so that a killed client's terminal is not read any
// longer. Nil: the attachment ends with its streams.
type Attach struct {
	Stdin, Stdout, Stderr *os.File
	Alive                 *os.File
	DetachKeys            []byte // empty: ctrl-p ctrl-q when there is a terminal, else none
}

// AttachEnded is what Alive reads when an attachment is over because its
// process has ended and all its output was passed on. Any other byte: the
// client has detached, or nobody takes its output.
const AttachEnded = wire.PartEnded

// WaitFor says what a wait waits for.
type WaitFor uint8

// The conditions of Docker's wait.
const (
	NotRunning WaitFor = iota // returns at once when the container is not running
	NextExit                  // the next exit, also of a container not yet started
	Gone                      // the container has been removed
)

// Stage is one row of a trace: the doorway that was just passed, and the time
// since the first.
type Stage struct {
	Name string
	At   time.Duration
}

// Started is the answer to Run. Exit gets one value, after the container has
// been removed when it is one that is removed at its end.
type Started struct {
	Container record.Container
	Warnings  []string
	Exit      <-chan record.Exit
	Trace     []Stage // when asked for
}
