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

// subidSource reads where subordinate ids come from (nsswitch.conf(5), subid). Of
// other sources than the files only the program getsubids knows, and not for all
// users at once.
func subidSource(o Options) record.Check {
	c := record.Check{Group: Host, Name: "source of subordinate ids", State: record.CheckOK, Found: "files"}
	text, _ := os.ReadFile(o.NSSwitch) // without it the files are the source
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "subid:"); ok {
			c.Found = strings.Join(strings.Fields(v), " ")
		}
	}
	if c.Found == "" || c.Found == "files" || strings.HasPrefix(c.Found, "files ") {
		return c
	}
	asked := program("getsubids", record.CheckWarn, "subordinate ids are those of "+c.Found+", which cannot be asked: they seem free", "install getsubids (uidmap or shadow-utils)")
	asked.Name = c.Name
	if asked.State == record.CheckOK {
		asked.State, asked.Found, asked.Why = record.CheckInfo, c.Found, "asked with getsubids for the users that matter most; ranges of others seem free"
		asked.Fix = "repeat those of others in /etc/subuid and /etc/subgid"
	}
	return asked
}
