package show

import (
	"fmt"
	"strings"

	"fief/internal/words/record"
	"fief/internal/words/ref"
)

// Who is the text of `ids who`; known is false when nobody has any of the ids.
func Who(w record.Who) (text string, known bool) {
	var b strings.Builder
	subject(&b, w)
	for _, id := range []struct {
		kind string
		who  *record.WhoID
	}{{"uid", w.UID}, {"gid", w.GID}} {
		if id.who != nil {
			known = whoID(&b, id.kind, *id.who) || known
		}
	}
	if w.Origin != "" && w.Origin != "host" {
		fmt.Fprintf(&b, "The ids are those of %s, not of the machine's initial user namespace.\n", w.Origin)
	}
	return b.String(), known
}

// subject says what was asked about when that is not an id.
func subject(b *strings.Builder, w record.Who) {
	if w.UID == nil || w.GID == nil {
		return
	}
	ids := fmt.Sprintf("uid %d and gid %d", w.UID.Host, w.GID.Host)
	switch {
	case w.Path != "":
		fmt.Fprintf(b, "%s belongs to %s\n", Printable(w.Path), ids)
	case w.PID != 0 && w.Exe != "":
		fmt.Fprintf(b, "process %d (%s) runs as %s\n", w.PID, Printable(w.Exe), ids)
	case w.PID != 0:
		fmt.Fprintf(b, "process %d runs as %s\n", w.PID, ids)
	}
}

// whoID says whose one id is, in one sentence for the container and one for
// the host's own user; then, when there are several, every claim.
func whoID(b *strings.Builder, kind string, i record.WhoID) bool {
	said := false
	say := func(format string, args ...any) {
		fmt.Fprintf(b, "%d is "+format+"\n", append([]any{i.Host}, args...)...)
		said = true
	}
	if i.Container != "" {
		name := ""
		if i.User != "" {
			name = " (" + Printable(i.User) + ")"
		}
		say("%s %d%s in container %s (%s)%s", kind, i.Inside, name, containerName(i), containerState(i), sinceWhen(i))
	}
	if i.HostName != "" {
		say("%s %s of this host", map[string]string{"uid": "user", "gid": "group"}[kind], Printable(i.HostName))
	}
	if !said && len(i.Claims) > 0 {
		say("%s", claimed(kind, i.Claims[0]))
	}
	if !said {
		fmt.Fprintf(b, "nobody has %s %d\n", kind, i.Host)
		return false
	}
	if len(i.Claims) > 1 {
		for _, r := range i.Claims {
			b.WriteString("  " + claim(r) + "\n")
		}
	}
	return true
}

func containerName(i record.WhoID) string {
	if i.Name != "" {
		return i.Name
	}
	return ref.Short(i.Container)
}

func containerState(i record.WhoID) string {
	if i.Status == "" {
		return ref.Short(i.Container)
	}
	return ref.Short(i.Container) + ", " + string(i.Status)
}

func sinceWhen(i record.WhoID) string {
	if i.Since.IsZero() {
		return ""
	}
	return " since " + since(i.Since)
}

// claimed says what an id is that is neither in a container nor a user.
func claimed(kind string, r record.IDRange) string {
	holder := Printable(whoever(r))
	switch r.Kind {
	case record.IDSub:
		return "one of the subordinate " + kind + "s of " + holder
	case record.IDEngine:
		return "kept by another engine: " + holder
	case record.IDDaemon:
		return "kept by another fief daemon: " + holder
	case record.IDReady:
		return "in a range kept ready for the next container"
	case record.IDProcess:
		return "used by a process: " + holder
	case record.IDQuarantine:
		return "in quarantine since a container had it: " + Printable(r.Why)
	case record.IDFree:
		return "free for the next containers"
	}
	return "claimed by " + holder
}

// claim is one line of the list of claims.
func claim(r record.IDRange) string {
	line := fmt.Sprintf("%-11s %d–%d", idKind(r), r.First, r.Last)
	if r.Holder != "" {
		line += "  " + Printable(r.Holder)
	}
	if r.Source != "" {
		line += "  (" + Printable(r.Source) + ")"
	}
	if !r.Since.IsZero() {
		line += "  since " + since(r.Since)
	}
	return line
}

// Printable replaces what a terminal would take as a command: names of files,
// processes and users are chosen by whoever owns them.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\ufffd' {
			return '?'
		}
		return r
	}, s)
}
