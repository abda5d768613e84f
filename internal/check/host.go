package check

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/words/record"
)

// path is where the daemon looks for programs of the host.
const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// host looks for the programs and settings of the host that some commands use.
func host(o Options) []record.Check {
	return []record.Check{
		program("ps", record.CheckWarn, "fief top and docker top need it, except with descriptors", "install procps"),
		program("getent", record.CheckInfo, "users that are not in /etc/passwd (LDAP, systemd) are not seen when ranges are granted", "install libc-bin"),
		program("newuidmap", record.CheckInfo, "only daemons of ordinary users need it", "install uidmap"),
		subidSource(o),
	}
}

func program(name string, without record.CheckState, why, fix string) record.Check {
	c := record.Check{Group: Host, Name: name, State: record.CheckOK}
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, name)
		if st, err := os.Stat(file); err == nil && st.Mode().IsRegular() && unix.Access(file, unix.X_OK) == nil {
			c.Found = file
			return c
		}
	}
	c.State, c.Found, c.Why, c.Fix = without, "not found", why, fix
	return c
}

// subidSource reads where the host's own tools take subordinate ids from
// (nsswitch.conf(5), subid). Fief reads the files.
func subidSource(o Options) record.Check {
	c := record.Check{Group: Host, Name: "source of subordinate ids", State: record.CheckOK, Found: "files"}
	text, _ := os.ReadFile(o.NSSwitch) // without it the files are the source
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "subid:"); ok {
			c.Found = strings.TrimSpace(v)
		}
	}
	if c.Found != "files" {
		c.State, c.Why = record.CheckWarn, "fief reads /etc/subuid and /etc/subgid only: ranges from elsewhere seem free to it"
		c.Fix = "repeat those ranges in the files"
	}
	return c
}
