package foreign

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/fd"
	"fief/internal/words/errand"
	"fief/internal/words/fault"
)

// Endings of the files that belong to a call.
const (
	logEnd    = ".log"
	pidEnd    = ".pid"
	socketEnd = ".sock"
)

// maxSaid bounds what of a runtime's words is taken into an error.
const maxSaid = 4096

// call is one call of a runtime.
type call struct {
	errand *errand.Errand
	name   string // of its files, less their endings
	dir    int    // the errand's Dir
	socket int    // where the terminal is handed over; -1
	said   *os.File
}

// end removes what the call needed.
func (n *call) end() {
	for _, ending := range []string{logEnd, pidEnd, socketEnd} {
		unix.Unlinkat(n.dir, n.name+ending, 0)
	}
	unix.Close(n.dir)
	if n.socket >= 0 {
		unix.Close(n.socket)
	}
	if n.said != nil {
		n.said.Close()
	}
}

// Argument is the first argument of the process that Carry is for.
const Argument = "runtime"

// Descriptors of that process: those of the errand come from firstFile on.
const (
	errandFile = 3
	reportFile = 4
	firstFile  = 5
)

// run makes the call and waits for its end.
func (n *call) run(files []int, binary string) error {
	said, err := fd.Memory("said", nil)
	if err != nil {
		return err
	}
	n.said = said
	text, err := fd.Memory("errand", n.errand.Encode())
	if err != nil {
		return err
	}
	defer text.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fault.Wrap(fault.Internal, "open", os.DevNull, err, "")
	}
	defer null.Close()
	var report [2]int
	if err := unix.Pipe2(report[:], unix.O_CLOEXEC); err != nil {
		return fault.Wrap(fault.Exhausted, "make", "pipe", err, "")
	}
	defer unix.Close(report[0])
	table := []uintptr{null.Fd(), said.Fd(), said.Fd(), text.Fd(), uintptr(report[1])}
	for i, slot := range n.errand.Stdio {
		if slot >= 0 && !n.errand.TTY && files[slot] >= 0 {
			table[i] = uintptr(files[slot])
		}
	}
	for _, given := range files {
		if given < 0 {
			given = int(null.Fd())
		}
		table = append(table, uintptr(given))
	}
	pidfd := -1
	pid, err := syscall.ForkExec(binary, []string{"fief-mon", Argument, n.name, strconv.Itoa(len(files))}, &syscall.ProcAttr{
		Dir: "/", Env: []string{"GOMAXPROCS=1", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, Files: table,
		Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Setsid: true, PidFD: &pidfd},
	})
	unix.Close(report[1])
	if err != nil {
		return fault.Wrap(fault.Internal, "call", n.errand.Runtime, err, "")
	}
	status, inTime := wait(pid, pidfd, n.errand.Limit)
	if !inTime {
		return n.failed("it has not come back within " + n.errand.Limit.String())
	}
	if why := drain(report[0]); why != "" {
		return n.failed(why)
	}
	if status.Exited() && status.ExitStatus() == 0 {
		return nil
	}
	f := n.failed(n.reason(status))
	f.Class = fault.Invalid // its own words: whoever knows more of them may say better
	return f
}

// drain reads what the process wrote before it became the runtime. Its end is
// closed by then.
func drain(fd int) string {
	var buf [maxSaid]byte
	for {
		got, err := unix.Read(fd, buf[:])
		if err != unix.EINTR {
			return string(buf[:max(got, 0)])
		}
	}
}

// wait waits for a child's end and kills it when it takes too long.
func wait(pid, pidfd int, limit time.Duration) (status syscall.WaitStatus, inTime bool) {
	try := func(options int) bool {
		for {
			got, err := syscall.Wait4(pid, &status, options, nil)
			if err != unix.EINTR {
				return got == pid || err != nil
			}
		}
	}
	inTime = true
	if pidfd < 0 || unix.SetNonblock(pidfd, true) != nil { // a kernel without pidfds
		for until := time.Now().Add(limit); !try(unix.WNOHANG); time.Sleep(10 * time.Millisecond) {
			if inTime && time.Now().After(until) {
				inTime = false
				unix.Kill(pid, unix.SIGKILL)
			}
		}
		return status, inTime
	}
	f := os.NewFile(uintptr(pidfd), "pidfd")
	defer f.Close()
	f.SetReadDeadline(time.Now().Add(limit))
	raw, err := f.SyscallConn()
	if err == nil {
		err = raw.Read(func(uintptr) bool { return try(unix.WNOHANG) })
	}
	if err != nil {
		inTime = try(unix.WNOHANG)
		if !inTime {
			unix.Kill(pid, unix.SIGKILL)
			try(0)
		}
	}
	return status, inTime
}

// failed puts a failure into Docker's words: "OCI runtime create failed: …".
func (n *call) failed(why string) *fault.Error {
	verb := n.errand.Verb
	if verb == errand.Start {
		verb = errand.Create
	}
	return fault.Say(fault.Internal, "OCI runtime "+verb.String()+" failed: "+why)
}

// reason is what a runtime that failed says of it: in its log, else on its
// standard error.
func (n *call) reason(status syscall.WaitStatus) string {
	if text := lastMessage(n.read(logSize, n.name+logEnd)); text != "" {
		return text
	}
	var buf [maxSaid]byte
	got, _ := n.said.ReadAt(buf[:], 0)
	if text := strings.TrimSpace(string(buf[:max(got, 0)])); text != "" {
		return strings.ToValidUTF8(text, "?")
	}
	if status.Signaled() {
		return n.errand.Runtime + " was ended by signal " + strconv.Itoa(int(status.Signal()))
	}
	return n.errand.Runtime + " ended with exit status " + strconv.Itoa(status.ExitStatus()) + " and without a word"
}

// logSize is more than a log's last entries.
const logSize = 64 << 10

// read reads the last bytes of a file of the call; empty when it is not a
// regular one or cannot be read.
func (n *call) read(size int, name string) string {
	fd, err := unix.Openat(n.dir, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return ""
	}
	buf := make([]byte, size)
	got, _ := unix.Pread(fd, buf, max(0, st.Size-int64(size)))
	return string(buf[:max(got, 0)])
}

// lastMessage finds the message of the last entry of a log in JSON: one object
// a line, with "msg" in it, as runc, crun and runsc write it.
func lastMessage(log string) string {
	const key = `"msg":`
	at := strings.LastIndex(log, key)
	if at < 0 {
		return ""
	}
	rest := strings.TrimLeft(log[at+len(key):], " \t")
	if rest == "" || rest[0] != '"' {
		return ""
	}
	for i := 1; i < len(rest) && rest[i] != '\n'; i++ {
		switch rest[i] {
		case '\\':
			i++
		case '"':
			quoted := strings.ReplaceAll(rest[:i+1], `\/`, "/")
			text, err := strconv.Unquote(quoted)
			if err != nil {
				text = quoted
			}
			return strings.ToValidUTF8(text[:min(len(text), maxSaid)], "?")
		}
	}
	return ""
}

// take takes over the process whose id the runtime has noted.
func (n *call) take() (Process, error) {
	noted := strings.TrimSpace(n.read(64, n.name+pidEnd))
	pid, err := strconv.Atoi(noted)
	if err != nil || pid < 2 {
		return Process{}, n.failed("it has not noted the process id of what it started")
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return Process{}, n.failed("there is no process " + noted + " although it says so: " + err.Error())
	}
	p := Process{PID: pid, PIDFD: pidfd, Console: -1}
	// Whatever the runtime says, no process is signalled that is not ours.
	if err := unix.Waitid(unix.P_PIDFD, pidfd, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil); err != nil {
		unix.Close(pidfd)
		return Process{}, n.failed("process " + noted + " is not one that it has started")
	}
	if n.socket >= 0 {
		if p.Console, err = n.console(); err != nil {
			p.abort()
			return Process{}, err
		}
	}
	return p, nil
}

// deadPID is si_pid of what waitid(2) found, which has no field in package unix:
// the first word behind the header, which ends where pointers are aligned.
func deadPID(info *unix.Siginfo) int {
	const header = (12 + unsafe.Sizeof(uintptr(0)) - 1) &^ (unsafe.Sizeof(uintptr(0)) - 1)
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(info), header)))
}
