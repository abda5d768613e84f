package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"fief/internal/check"
	"fief/internal/door/native"
	"fief/internal/door/native/wire"
	"fief/internal/snapshot"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// The ids that a pool without settings grants from: systemd's range for
// containers, both included (systemd UIDS-GIDS).
const (
	poolFirst = 524288
	poolLast  = 1878982655
)

// checkup is `fiefd check [--json] [FLAG...]`: it looks at what this host allows
// a daemon with these flags, and starts none. It works where the daemon cannot
// start: settings that cannot be read are one of its findings.
func checkup(args []string) int {
	words := slices.DeleteFunc(slices.Clone(args), func(w string) bool { return w == "--json" })
	s, err := configure(words)
	if errors.Is(err, pflag.ErrHelp) {
		return 0
	}
	settingsFound := settingsCheck(s, err)
	if err != nil {
		s = settings{}
		flags(&s) // sets the defaults
		s, _ = s.check()
	}
	checks := []record.Check{settingsFound, monitorCheck(), daemonCheck(s)}
	checks = append(checks, check.Run(check.Options{
		DataRoot: s.DataRoot, ExecRoot: s.ExecRoot, Remap: s.Remap, First: poolFirst, Last: poolLast,
	}, snapshot.Probe)...)
	checks = append(checks, poolChecks(s)...)
	out := json.NewEncoder(os.Stdout)
	for _, c := range checks {
		if len(words) == len(args) {
			fmt.Println(strings.TrimSpace(strings.Join([]string{string(c.State), c.Group + ":", c.Name, c.Found, c.Why, c.Fix}, "\t")))
		} else if out.Encode(c) != nil {
			return exitFailed // nobody reads it
		}
	}
	return 0
}

func settingsCheck(s settings, err error) record.Check {
	c := record.Check{Group: check.Daemon, Name: "settings", State: record.CheckOK, Found: s.configFile}
	if _, missing := os.Stat(s.configFile); missing != nil {
		c.Found = "defaults; no " + s.configFile
	}
	if err != nil {
		c.State, c.Found, c.Why, c.Fix = record.CheckFail, err.Error(), "the daemon does not start; the rest was looked at with the defaults", fault.HintOf(err)
	}
	return c
}

func monitorCheck() record.Check {
	path, err := beside("fief-mon")
	c := record.Check{Group: check.Daemon, Name: "fief-mon", State: record.CheckOK, Found: path}
	if err != nil {
		c.State, c.Found, c.Why, c.Fix = record.CheckFail, err.Error(), "the daemon does not start", "install all of fief's programs in one directory"
	} else if unix.Access(path, unix.X_OK) != nil {
		c.State, c.Found, c.Why, c.Fix = record.CheckFail, path+" cannot be executed", "no container can be started", "chmod 755 "+path
	}
	return c
}

// doorOf is the native socket of a daemon with these settings.
func doorOf(s settings) string {
	return filepath.Join(filepath.Dir(strings.TrimPrefix(s.Hosts[0], "unix://")), native.SocketName)
}

// answer asks a running daemon about itself.
func answer(s settings) (socket string, i record.Info, err error) {
	socket = doorOf(s)
	conn, err := wire.Dial(socket)
	if err != nil {
		return socket, i, err
	}
	defer conn.Close()
	err = conn.Call(wire.Info, struct{}{}, &i, nil)
	return socket, i, err
}

func daemonCheck(s settings) record.Check {
	socket, i, err := answer(s)
	c := record.Check{Group: check.Daemon, Name: "daemon", State: record.CheckOK}
	switch {
	case err == nil && i.Version != version:
		c.State, c.Found, c.Why, c.Fix = record.CheckWarn, "version "+i.Version+" runs, "+version+" is installed", "new features of fief may be refused", "restart the daemon: containers go on"
	case err == nil:
		c.Found = fmt.Sprintf("version %s at %s, %d containers, %d running", i.Version, socket, i.Containers, i.Running)
	case fault.Is(err, fault.Unavailable):
		c.State, c.Found = record.CheckInfo, "none runs at "+socket
	default:
		c.State, c.Found, c.Fix = record.CheckWarn, err.Error(), fault.HintOf(err)
	}
	return c
}

// poolChecks is what only a running daemon knows: which ranges are left after
// all that it, other engines and processes have.
func poolChecks(s settings) []record.Check {
	_, i, err := answer(s)
	if err != nil {
		return nil
	}
	c := record.Check{
		Group: check.IDs, Name: "ranges of the daemon", State: record.CheckOK,
		Found: fmt.Sprintf("%d granted, %d quarantined, %d free", i.Pool.Granted, i.Pool.Quarantined, i.Pool.Free),
	}
	if i.Pool.Free == 0 {
		c.State, c.Why, c.Fix = record.CheckFail, "no further container can have a range of its own", "remove containers; see fief ids"
	}
	return append([]record.Check{c}, contested(s)...)
}

// contested says which ids of containers somebody else claims too, where the
// daemon can tell.
func contested(s settings) []record.Check {
	conn, err := wire.Dial(doorOf(s))
	if err != nil {
		return nil
	}
	defer conn.Close()
	var all []record.IDRange
	err = conn.Call(wire.IDs, struct{}{}, nil, func(m wire.Message) (err error) {
		if m.Kind == wire.Data {
			all, err = wire.Ranges(all, m.Body)
		}
		return err
	})
	if err != nil {
		return nil // an older daemon; the check of its version says so
	}
	c := record.Check{Group: check.IDs, Name: "ids of containers that others claim", State: record.CheckOK, Found: "none"}
	var found []string
	for _, r := range all {
		if len(r.Overlaps) > 0 && (r.Kind == record.IDLease || r.Kind == record.IDMap || r.Kind == record.IDReady) {
			found = append(found, fmt.Sprintf("%d–%d of %s: %s", r.First, r.Last, r.Holder, strings.Join(r.Overlaps, ", ")))
		}
	}
	if found != nil {
		c.State, c.Found = record.CheckWarn, strings.Join(found[:min(len(found), 4)], "; ")
		c.Why, c.Fix = "each may act on the other's files and processes", "see fief ids; give the container others with fief update --userns auto"
	}
	return []record.Check{c}
}
