package main

import (
	"compress/gzip"
	"errors"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// compressName is the first argument of the process that compresses a file.
const compressName = "compress"

// compress has src compressed to dst by a process of its own: what that takes,
// a megabyte and more, would else stay in the monitor for as long as its
// container lives.
func compress(stop <-chan struct{}, src, dst *os.File) error {
	pidfd := -1
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"fief-mon", compressName}, &syscall.ProcAttr{
		Env: []string{"GOMAXPROCS=1"}, Files: []uintptr{src.Fd(), dst.Fd(), 2}, Sys: &syscall.SysProcAttr{PidFD: &pidfd},
	})
	if err != nil {
		return err
	}
	c := &compressor{pid: pid}
	ended := make(chan struct{})
	go func() {
		select {
		case <-stop:
			c.kill()
		case <-ended:
		}
	}()
	status := c.wait(pidfd)
	close(ended)
	if !status.Exited() || status.ExitStatus() != 0 {
		return errors.New("the process that compresses a log ended with status " + strconv.Itoa(int(status)))
	}
	return nil
}

// compressor is a process under way.
type compressor struct {
	pid    int
	mu     sync.Mutex
	reaped bool // guarded by mu: the pid may be somebody else's
	status syscall.WaitStatus
}

func (c *compressor) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.reaped {
		syscall.Kill(c.pid, syscall.SIGKILL)
	}
}

// try reaps the process if it has ended.
func (c *compressor) try() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		got, err := syscall.Wait4(c.pid, &c.status, syscall.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		c.reaped = got == c.pid || err != nil
		return c.reaped
	}
}

// wait waits in the poller, without a pidfd (Linux before 5.2) by looking again.
func (c *compressor) wait(pidfd int) syscall.WaitStatus {
	if pidfd >= 0 && unix.SetNonblock(pidfd, true) == nil {
		f := os.NewFile(uintptr(pidfd), "pidfd")
		defer f.Close()
		if raw, err := f.SyscallConn(); err == nil {
			raw.Read(func(uintptr) bool { return c.try() })
		}
	}
	for !c.reaped && !c.try() {
		time.Sleep(100 * time.Millisecond)
	}
	return c.status
}

// runCompress is that process: stdin to stdout. The inode number lets a reader
// that holds the plain file find its place again.
func runCompress() int {
	info, err := os.Stdin.Stat()
	if err != nil {
		return 1
	}
	w := gzip.NewWriter(os.Stdout)
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		w.Comment = strconv.FormatUint(st.Ino, 10)
	}
	if _, err := io.Copy(w, os.Stdin); err != nil {
		return 1
	}
	if w.Close() != nil || os.Stdout.Sync() != nil {
		return 1
	}
	return 0
}
