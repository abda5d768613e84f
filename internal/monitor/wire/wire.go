// Package wire is what daemon and monitor say to each other: one struct per
// message, one SOCK_SEQPACKET datagram each, descriptors beside it, encoded
// flat and little-endian by hand because the monitor must not carry a
// reflecting encoder into every container's life.
//
// The side that holds the daemon sends Start, Exec, Attach, Signal, Resize,
// Query and Ack; the monitor answers each but Ack with one Done or Status that
// has the same sequence number. Hello opens every connection, from the
// monitor; Exited comes from it at any time, with sequence number 0.
package wire

import (
	"fief/internal/words/errand"
	"fief/internal/words/plan"
)

// Plans numbers the plans and errands that this build makes and carries out.
// Monitors of another number are sent none: see Adopt.
const Plans = uint32(errand.Layout)<<16 | uint32(plan.Layout)

// Version is the version of this encoding. A daemon talks only to monitors of
// the same version; the build label may differ, as monitors outlive daemons: a
// daemon finds monitors of builds before and after it. Within a version
// therefore messages keep their numbers and fields, new fields come last and are
// passed over by who does not know them (coder.late), and what an unknown
// message asks is refused. Start and Adopt alone may change: they go only to
// monitors of the same build. Plans are told apart by their own number.
const Version = 1

// Op names a message type on the wire. Numbers are never reused.
type Op uint8

// The messages.
const (
	OpHello Op = iota + 1
	OpStart
	OpExec
	OpAttach
	OpSignal
	OpResize
	OpQuery
	OpAck
	OpDone
	OpStatus
	OpExited
	OpHealth
	OpCheckNow
	OpChecked
	OpAdopt
)

// Message is one of the structs below.
type Message interface {
	op() Op
	fields(c *coder)
}

// Hello is the first message of a connection, from the monitor. ID is empty
// while the monitor is idle. Refused says that another daemon holds the
// monitor; the connection is closed after it. Plans is the number of its build,
// 0 of those before there was one.
type Hello struct {
	Version uint32
	Label   string
	PID     uint32
	ID      string
	Refused bool
	Plans   uint32
}

// Adopt makes an idle monitor the stand-in of the one that owns a container,
// whose build carries out other plans than the daemon's: it starts further
// processes and checks health. Started is Unix nanoseconds. Descriptors: a pidfd
// of the container's process 1, which is not its child.
type Adopt struct {
	ID      string
	Dir     string // mon.sock is made in it
	PID     uint32 // of the container's process 1
	Started int64
}

// Start makes an idle monitor the owner of a container. Descriptors: those of
// Proc, then one for Net unless its Port is 0, and one if it waits.
type Start struct {
	ID   string
	Dir  string // run directory: mon.sock and exit are made in it
	Log  Log
	Proc Proc
	Net  Net
}

// Net is what connects the container's network namespace, once it is made: the
// parts of a link.Wiring.
type Net struct {
	Outside  []byte
	Spaces   []uint32
	Settings []string
	Inside   []byte
	Devices  []NetDevice
	// Port is where a name server for the namespace is to listen, 0: there is none.
	// What is opened is put into the box that the message brings (netin.Serve).
	Port uint32
	// Wait: the namespace is offered by way of another box when the above is done,
	// and the program does not run before it is said that it may (netin.Offer).
	Wait bool
}

// NetDevice is a link.Device.
type NetDevice struct {
	Name string
	At   []uint32
}

// Log says where a container's output is noted.
type Log struct {
	Driver   string // "json-file", "local", "cri", "journald" or "none"
	Path     string // of the drivers that write files
	MaxSize  int64  // bytes; 0: never rotated
	MaxFile  uint32
	Compress bool     // old files
	Buffer   int64    // bytes kept for a log that does not keep up; 0: the program waits for it
	Attrs    string   // JSON object put into each line of json-file; empty: none
	Fields   []string // "NAME=value", sent with each line of journald
}

// Exec starts another process in the running container. Descriptors: those of
// Proc.
type Exec struct {
	ID   string
	Proc Proc
}

// Proc is a process to start. Descriptors: one for every slot that is
// SlotFile, then those of each attachment.
type Proc struct {
	TTY       bool
	OpenStdin bool
	StdinOnce bool
	Rows      uint16
	Cols      uint16
	Plan      []byte
	Slots     []Slot
	Attach    []Attachment
}

// Slot says who provides the descriptor at its place in the plan's table.
type Slot uint8

// The slots: a descriptor sent along, or one that the monitor makes.
const (
	SlotFile Slot = iota
	SlotStdin
	SlotStdout
	SlotStderr
	SlotPIDFD // of the container's process 1
)

// Attachment is a client's connection with a process. Has says which of its
// four descriptors are sent, in the order of the bits.
type Attachment struct {
	Has  uint8
	Keys []byte // detach keys; empty: the default of the process
}

// The bits of Attachment.Has.
const (
	HasStdin uint8 = 1 << iota
	HasStdout
	HasStderr
	HasAlive
)

// Files returns how many descriptors belong to the attachment.
func (a Attachment) Files() int {
	n := 0
	for bit := HasStdin; bit <= HasAlive; bit <<= 1 {
		if a.Has&bit != 0 {
			n++
		}
	}
	return n
}

// Attach connects a client with a process that runs already. Target is empty
// for the container's own process, else an exec id.
type Attach struct {
	Target string
	Client Attachment
}

// Signal sends a signal to a process.
type Signal struct {
	Target string
	Number uint32
}

// Resize sets the size of a process's terminal.
type Resize struct {
	Target     string
	Rows, Cols uint16
}

// Health makes the monitor check its container's health from now on: Proc is
// run every Interval, in nanoseconds as all of these, and killed after Timeout.
// Until StartPeriod is over failures do not count, and StartInterval (0:
// Interval) is the pause. Retries failures in a row make it unhealthy.
type Health struct {
	Interval, Timeout, StartPeriod, StartInterval int64
	Retries                                       uint32
	Proc                                          Proc
}

// CheckNow has a probe run at once; it is answered when that has ended, after
// a Checked.
type CheckNow struct{}

// Condition is what is known of a container's health.
type Condition uint8

// The conditions.
const (
	Starting Condition = iota
	Healthy
	Unhealthy
)

// Checked comes from the monitor after every probe, and after a Status, with
// sequence number 0. Results are the last five, oldest first.
type Checked struct {
	State   Condition
	Streak  uint32 // failures in a row
	Results []Check
}

// Check is the result of one probe. Code is -1 when it could not be started or
// was killed. Times are Unix nanoseconds.
type Check struct {
	Start, End int64
	Code       int32
	Output     string // its first 4 KiB
}

// Query asks for a Status.
type Query struct{}

// Ack says that an Exited has arrived where it will not be lost.
type Ack struct{ Number uint64 }

// Kind says how a request ended.
type Kind uint8

// The kinds of Done.
const (
	KindOK     Kind = iota
	KindFailed      // a step of the plan failed: Step, Call and Errno are a plan.Failure's
	KindFault       // Class and Text are a fault's
)

// Done answers a request.
type Done struct {
	Kind  Kind
	PID   uint32
	Step  int32
	Call  int32
	Errno uint32
	Class uint8 // a fault.Class
	Text  string
	Hint  string
}

// Status answers Query.
type Status struct {
	ID      string
	PID     uint32 // 0 when process 1 has ended
	Started int64  // Unix nanoseconds
	Execs   []ExecStatus
}

// ExecStatus is one running exec session.
type ExecStatus struct {
	ID  string
	PID uint32
}

// Exited says that a process has ended and that all it wrote has been logged.
// It is sent again on each new connection until an Ack names its Number.
type Exited struct {
	Number uint64
	Target string
	Code   int32  // 128+n after signal n
	Signal uint32 // 0 when the process exited by itself
	At     int64  // Unix nanoseconds
}

func (*Hello) op() Op  { return OpHello }
func (*Start) op() Op  { return OpStart }
func (*Exec) op() Op   { return OpExec }
func (*Attach) op() Op { return OpAttach }
func (*Signal) op() Op { return OpSignal }
func (*Resize) op() Op { return OpResize }
func (*Query) op() Op  { return OpQuery }
func (*Ack) op() Op    { return OpAck }
func (*Done) op() Op   { return OpDone }
func (*Status) op() Op { return OpStatus }
func (*Exited) op() Op { return OpExited }

func (*Health) op() Op   { return OpHealth }
func (*CheckNow) op() Op { return OpCheckNow }
func (*Checked) op() Op  { return OpChecked }
func (*Adopt) op() Op    { return OpAdopt }

// Other is a message that only a newer build knows: a request is refused, news
// are passed over.
type Other struct{ Code Op }

func (m *Other) op() Op { return m.Code }

// blank returns an empty message of the type.
func blank(op Op) Message {
	switch op {
	case OpHello:
		return new(Hello)
	case OpStart:
		return new(Start)
	case OpExec:
		return new(Exec)
	case OpAttach:
		return new(Attach)
	case OpSignal:
		return new(Signal)
	case OpResize:
		return new(Resize)
	case OpQuery:
		return new(Query)
	case OpAck:
		return new(Ack)
	case OpDone:
		return new(Done)
	case OpStatus:
		return new(Status)
	case OpExited:
		return new(Exited)
	case OpHealth:
		return new(Health)
	case OpCheckNow:
		return new(CheckNow)
	case OpChecked:
		return new(Checked)
	case OpAdopt:
		return new(Adopt)
	}
	return &Other{Code: op}
}

// Files returns how many descriptors a message must bring along.
func Files(m Message) int {
	switch m := m.(type) {
	case *Start:
		return m.Proc.files() + m.Net.files()
	case *Exec:
		return m.Proc.files()
	case *Health:
		return m.Proc.files()
	case *Attach:
		return m.Client.Files()
	case *Adopt:
		return 1
	}
	return 0
}

func (n *Net) files() int {
	count := 0
	if n.Port != 0 {
		count++
	}
	if n.Wait {
		count++
	}
	return count
}

func (p *Proc) files() int {
	n := 0
	for _, slot := range p.Slots {
		if slot == SlotFile {
			n++
		}
	}
	for _, a := range p.Attach {
		n += a.Files()
	}
	return n
}

// What a monitor sends on an attachment's Alive, when that is a socket, before
// it closes it as the last of the attachment's descriptors.
const (
	PartEnded    byte = 'e' // the process has ended and all its output was taken
	PartDetached byte = 'd' // the detach keys were typed
	PartBroken   byte = 'b' // none of the client's output streams is read any more
)

// DefaultDetachKeys are ctrl-p ctrl-q, as in docker-attach(1).
const DefaultDetachKeys = "\x10\x11"
