package proc

import (
	"bytes"
	"fmt"
	"strconv"

	"fief/internal/words/fault"
)

// Owner says who a process runs as, by its effective ids as this process's
// user namespace knows them, and the name of what it runs (proc_pid_status(5),
// Uid, Gid and Name). NotFound when there is no such process.
func Owner(pid int) (uid, gid uint32, name string, err error) {
	text, err := read(pid, "status")
	if err != nil {
		return 0, 0, "", err
	}
	return parseOwner(text)
}

// parseOwner reads the lines of /proc/PID/status that say whose it is.
func parseOwner(text []byte) (uid, gid uint32, name string, err error) {
	found := 0
	for line := range bytes.Lines(text) {
		key, value, _ := bytes.Cut(line, []byte(":"))
		fields := bytes.Fields(value)
		switch string(key) {
		case "Name":
			name = string(bytes.TrimSpace(value))
		case "Uid", "Gid":
			if len(fields) < 2 {
				continue
			}
			n, err := strconv.ParseUint(string(fields[1]), 10, 32)
			if err != nil {
				continue
			}
			found++
			if string(key) == "Uid" {
				uid = uint32(n)
			} else {
				gid = uint32(n)
			}
		}
	}
	if found != 2 {
		return 0, 0, "", fault.New(fault.Internal, "read owner of process", fmt.Sprintf("%.32q", name), "no ids in its status", "")
	}
	return uid, gid, name, nil
}
