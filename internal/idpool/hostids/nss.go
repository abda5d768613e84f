package hostids

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

const (
	// askTime is how long a name service may take that is asked for a name to be
	// shown, and grantTime how long one may on whose answer it depends who gets
	// which ids: a directory that is far away takes seconds for askKeys of them.
	askTime   = 2 * time.Second
	grantTime = 10 * time.Second
	// askKeys is how many ids one process is asked for.
	askKeys = 128
	maxSaid = 4 << 20 // bytes that a program may print
)

// NSS returns the users and groups with these ids that the name services of the
// host know: LDAP, Active Directory, NIS, systemd's users. They are asked through
// getent(1), since only glibc can load their modules. Nothing is asked when
// there is no getent, or when nsswitch.conf names no service but files for users
// and groups: those Read has read. Otherwise that takes two processes for every
// 128 ids, each ended after ten seconds; the first that fails is the last.
//
// What was found is returned also beside an error, of class Unavailable: then
// some of the ids may have users that are not known.
func (f Files) NSS(ctx context.Context, ids []idmap.Host) ([]Claim, error) {
	f = f.complete()
	return f.services(ctx, f.granting, ids)
}

// services is NSS with another limit for each process.
func (f Files) services(ctx context.Context, limit time.Duration, ids []idmap.Host) ([]Claim, error) {
	var out []Claim
	services := parseNSSwitch(f.nsswitch())
	for _, database := range []string{"passwd", "group"} {
		if f.getent() == "" || !slices.ContainsFunc(services[database], func(s string) bool { return s != "files" }) {
			continue
		}
		for chunk := range slices.Chunk(ids, askKeys) {
			found, err := f.known(ctx, limit, database, chunk)
			out = append(out, found...)
			if err != nil {
				return out, err
			}
		}
	}
	return out, nil
}

// known asks for the users or groups with at most askKeys ids.
func (f Files) known(ctx context.Context, limit time.Duration, database string, ids []idmap.Host) ([]Claim, error) {
	args := []string{database}
	for _, id := range ids {
		args = append(args, strconv.FormatUint(uint64(id), 10))
	}
	text, code, err := f.ask(ctx, limit, f.getent(), args...)
	if err == nil && code != 0 && code != 2 { // 2: one or more of the keys could not be found
		err = fmt.Errorf("it ended with %d", code)
	}
	var out []Claim
	for _, a := range parseAccounts(text) {
		out = append(out, Claim{From: uint64(a.id), To: uint64(a.id) + 1, UID: database == "passwd", GID: database == "group",
			Kind: record.IDUser, Holder: a.name, Source: "getent " + database})
	}
	asked := fmt.Sprintf("%d of the ids %d…%d with getent %s", len(ids), slices.Min(ids), slices.Max(ids), database)
	return out, fault.Wrap(fault.Unavailable, "look up", asked, err, "")
}

// UserName returns the name that the host has for a uid, by the files or else by
// name services; false when there is none or it cannot be known.
func (f Files) UserName(ctx context.Context, uid idmap.Host) (string, bool) {
	f = f.complete()
	return f.nameOf(ctx, f.Passwd, "passwd", uid)
}

// GroupName is UserName for a gid.
func (f Files) GroupName(ctx context.Context, gid idmap.Host) (string, bool) {
	f = f.complete()
	return f.nameOf(ctx, f.Group, "group", gid)
}

func (f Files) nameOf(ctx context.Context, path, database string, id idmap.Host) (string, bool) {
	list, _ := accountsOf(path)
	for _, a := range list {
		if a.id == uint32(id) {
			return a.name, true
		}
	}
	found, _ := f.services(ctx, f.patience, []idmap.Host{id})
	for _, c := range found {
		if c.From == uint64(id) && c.UID == (database == "passwd") {
			return c.Holder, true
		}
	}
	return "", false
}

// account finds a user or group by name or number as Docker does: in the file,
// then with getent (moby, daemon/internal/usergroup/lookup_unix.go, whose words
// the errors are). Class NotFound when there is none, Unavailable when that
// cannot be known.
func (f Files) account(ctx context.Context, database, key string) (account, error) {
	path := f.Passwd
	if database == "group" {
		path = f.Group
	}
	list, err := accountsOf(path)
	if err != nil {
		return account{}, err
	}
	if a, ok := lookup(list, key); ok {
		return a, nil
	}
	if f.getent() == "" || strings.HasPrefix(key, "-") || strings.ContainsAny(key, ":\n\x00") {
		return account{}, say(fault.NotFound, "no matching entries in %s file", database)
	}
	text, code, err := f.ask(ctx, f.granting, f.getent(), database, key)
	id, numeric := number(key)
	found := parseAccounts(text)
	switch {
	case err != nil:
		unknown := say(fault.Unavailable, "getent %s %s: %v", database, key, err)
		unknown.Hint = "mend the name services of " + f.NSSwitch + ", or name one that is in " + path
		return account{}, unknown
	case code == 2 || code == 0 && (len(found) == 0 || numeric && found[0].id != id):
		return account{}, say(fault.NotFound, "getent unable to find entry %q in %s database", key, database)
	case code == 1:
		return account{}, say(fault.Unavailable, "getent reported invalid parameters/database unknown")
	case code != 0:
		return account{}, say(fault.Unavailable, "getent ended with %d", code)
	}
	return found[0], nil
}

func say(class fault.Class, format string, args ...any) *fault.Error {
	return fault.Say(class, fmt.Sprintf(format, args...))
}

// inWords says err, with its class and hint, in words that end with it.
func inWords(err error, format string, args ...any) error {
	said := fault.Say(fault.ClassOf(err), fmt.Sprintf(format, args...)+fmt.Sprintf(": %v", err))
	said.Hint = fault.HintOf(err)
	return said
}

// nsswitch returns nsswitch.conf, empty when it cannot be read: so do the
// programs that it is for.
func (f Files) nsswitch() string {
	text, _ := readFile(f.NSSwitch, maxNote, 0)
	return string(text)
}

// parseNSSwitch reads nsswitch.conf(5): the services of each database, in order,
// without the actions in brackets between them.
func parseNSSwitch(text string) map[string][]string {
	out := map[string][]string{}
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		database, rest, ok := strings.Cut(line, ":")
		database = strings.ToLower(strings.TrimSpace(database))
		if !ok || database == "" || out[database] != nil {
			continue
		}
		for rest != "" {
			plain, action, _ := strings.Cut(rest, "[")
			out[database] = append(out[database], strings.Fields(plain)...)
			_, rest, _ = strings.Cut(action, "]")
		}
	}
	return out
}

func (f Files) getent() string { return find(f.Getent, "getent") }

func find(path, name string) string {
	if path == "" {
		path, _ = exec.LookPath(name)
		return path
	}
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// ask runs a program until it has ended or the limit is over, when it is killed
// with all that it started. It returns what the program printed, also when that
// is not all, and its exit code.
func (f Files) ask(ctx context.Context, limit time.Duration, program string, args ...string) ([]byte, int, error) {
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	said := &printed{}
	cmd := exec.CommandContext(within, program, args...)
	cmd.Env = []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH")}
	cmd.Dir, cmd.Stdout = "/", said
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = limit
	err := cmd.Run()
	var ended *exec.ExitError
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case within.Err() != nil:
		err = fmt.Errorf("%s did not answer within %s", program, limit)
	case errors.As(err, &ended) && ended.Exited():
		return said.text.Bytes(), ended.ExitCode(), nil
	}
	return said.text.Bytes(), 0, err
}

// printed keeps what a program prints, up to maxSaid bytes.
type printed struct{ text bytes.Buffer }

func (p *printed) Write(b []byte) (int, error) {
	if p.text.Len()+len(b) > maxSaid {
		return 0, fmt.Errorf("it prints more than %d bytes", maxSaid)
	}
	return p.text.Write(b)
}
