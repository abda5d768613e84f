package cli

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"fief/internal/cli/show"
	"fief/internal/door/native/cmdline"
	"fief/internal/door/native/wire"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

func idCommands() []Command {
	return []Command{
		{Name: "ids", Use: "[OPTIONS]", Short: "List who has which user and group ids of this host", Long: idsLong, Setup: setupIDs},
		{Name: "ids-who", Use: "[OPTIONS] UID|NAME|PATH|pid:PID [...]", Short: "Tell whose a host id, a file or a process is", Long: whoLong,
			Min: 1, Max: -1, Objects: files, Setup: setupWho},
		{Name: "update", Use: "[OPTIONS] CONTAINER [CONTAINER...]", Short: "Change limits of containers, or give stopped ones other host ids", Long: updateLong,
			Min: 1, Max: -1, Objects: containers, Setup: setupUpdate},
	}
}

const idsLong = `Every container has host ids of its own: its root is some id above 65536 that
nobody else has. This table shows who has what: users and groups, lines of
/etc/subuid and /etc/subgid, other engines, containers, and what is free.

Kinds: user and group, subid (a line of /etc/subuid or /etc/subgid), engine,
daemon (another fief daemon), lease (a container's own range), map (a container's
explicit map), ready (kept for the next start), process (one that nobody
registered), quarantine (was leased; files or processes may be left), free.

  fief ids --kind lease,map      what containers have
  fief ids who 1048677           whose one id is`

const whoLong = `Answers "whose is this?" for what the host's ls and ps show as a bare number.
A word with a slash is a path, whose owners are looked up. A number is a uid;
uid:N, gid:N and pid:N say which kind they are. Another word is a user of this
host. The exit status is 1 when nobody has the ids.

  fief ids who 1048677
  fief ids who /srv/data/file
  fief ids who pid:4242`

const updateLong = `Limits are changed at once, also of a container that runs; those that are not
named stay.

For other host ids the container must be stopped. Its files are kept under the ids it knows
itself, so that nothing is copied or chowned: at the next start they appear under
the new host ids. The flags mean what they mean to 'fief run'.

  fief update --userns auto web                 a range of its own again
  fief update --uidmap 0:200000:65536 web       exactly these ids
  fief update --memory 512m --cpus 1.5 web      these limits, at once`

func setupIDs(fs *pflag.FlagSet) action {
	all := fs.BoolP("all", "a", false, "Show each user and group of the host, not one line for all")
	kinds := fs.StringSlice("kind", nil, "Show only these kinds of claims")
	format := fs.String("format", "", "Format output: 'table', 'table TEMPLATE', 'json', or a Go TEMPLATE")
	noTrunc := fs.Bool("no-trunc", false, "Don't truncate output")
	asJSON := jsonFlag(fs, format)
	return func(c *Client, args []string) error {
		asJSON()
		if err := checkKinds(*kinds); err != nil {
			return err
		}
		ids, err := c.ids()
		if err != nil {
			return err
		}
		ranges := ids.Ranges
		if len(*kinds) > 0 {
			ranges = slices.DeleteFunc(ranges, func(r record.IDRange) bool { return !slices.Contains(*kinds, string(r.Kind)) })
		}
		overlaps := show.IDOverlaps(ranges)
		whole := *format == "json"
		rows := show.IDRows(ranges, !*noTrunc && !whole, *all || whole)
		if err := show.Write(c.Out, show.IDTable(*format, len(overlaps) > 0), rows); err != nil {
			return err
		}
		if *format == "" && len(*kinds) == 0 {
			c.line("\n" + show.IDSummary(ids))
		}
		for _, o := range overlaps {
			fmt.Fprintln(c.Err, "WARNING: "+o)
		}
		return nil
	}
}

func (c *Client) ids() (ids record.IDs, err error) {
	var ranges []record.IDRange
	err = c.watch(wire.IDs, struct{}{}, &ids, func(m wire.Message) (err error) {
		if m.Kind == wire.Data {
			ranges, err = wire.Ranges(ranges, m.Body)
		}
		return err
	})
	ids.Ranges = ranges
	return ids, err
}

// allKinds are what --kind takes.
func allKinds() []string {
	return []string{
		string(record.IDUser), string(record.IDSub), string(record.IDEngine), string(record.IDDaemon), string(record.IDLease),
		string(record.IDMap), string(record.IDReady), string(record.IDProcess), string(record.IDQuarantine), string(record.IDFree),
	}
}

func checkKinds(kinds []string) error {
	for _, k := range kinds {
		if !slices.Contains(allKinds(), k) {
			f := fault.Say(fault.Invalid, "invalid argument \""+k+"\" for \"--kind\" flag: no such kind")
			f.Hint, f.ExitCode = "kinds are "+strings.Join(allKinds(), ", "), 125
			return f
		}
	}
	return nil
}

func setupWho(fs *pflag.FlagSet) action {
	format := fs.StringP("format", "f", "", "Format output using a Go TEMPLATE, or 'json'")
	process := fs.Bool("pid", false, "The words are process ids")
	asJSON := jsonFlag(fs, format)
	return func(c *Client, args []string) error {
		asJSON()
		unknown := false
		for _, word := range args {
			if *process {
				word = "pid:" + word
			}
			w, err := parseWho(word)
			if err != nil {
				return err
			}
			known, err := c.who(w, *format)
			if err != nil {
				return err
			}
			unknown = unknown || !known
		}
		if unknown {
			return status(1)
		}
		return nil
	}
}

// who asks and prints one answer; known is false when nobody has the ids.
func (c *Client) who(w ask.Who, format string) (known bool, err error) {
	var answer record.Who
	if err := c.call(wire.Who, w, &answer); err != nil {
		return false, err
	}
	text, known := show.Who(answer)
	if format != "" {
		return known, show.Object(c.Out, format, answer)
	}
	fmt.Fprint(c.Out, text)
	return known, nil
}

// parseWho reads a word of `ids who`, and looks up what only the client can:
// the owners of a file and the uid of a user.
func parseWho(word string) (ask.Who, error) {
	w := ask.Who{Asked: word}
	if strings.Contains(word, "/") {
		return ownersOf(w)
	}
	kind, rest, prefixed := strings.Cut(word, ":")
	if !prefixed {
		kind, rest = "uid", word
	}
	n, number := parseID(rest)
	switch {
	case kind == "pid" && number && n > 0 && n <= 1<<22:
		w.PID = int(n)
	case kind == "uid" && number:
		w.UID = &n
	case kind == "gid" && number:
		w.GID = &n
	case kind == "uid" || kind == "gid":
		return named(w, kind, rest)
	default:
		return w, whoFault(word, "it is neither an id nor a process, a path or a user")
	}
	return w, nil
}

func ownersOf(w ask.Who) (ask.Who, error) {
	var st unix.Stat_t
	if err := unix.Lstat(w.Asked, &st); err != nil {
		return w, fault.Wrap(fault.NotFound, "look at", w.Asked, err, "")
	}
	w.Path, w.UID, w.GID = w.Asked, &st.Uid, &st.Gid
	return w, nil
}

func named(w ask.Who, kind, name string) (ask.Who, error) {
	file, to := "/etc/passwd", &w.UID
	if kind == "gid" {
		file, to = "/etc/group", &w.GID
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return w, fault.Wrap(fault.NotFound, "look up", name, err, "")
	}
	n, ok := accountID(string(text), name)
	if !ok {
		return w, whoFault(w.Asked, "no line of "+file+" has that name")
	}
	*to = &n
	return w, nil
}

func whoFault(word, why string) error {
	f := fault.New(fault.Invalid, "tell whose", word+" is", why, "say a uid, uid:N, gid:N, pid:N, a user's name, or a path with a slash (./file)")
	f.ExitCode = 1
	return f
}

// updateFlags are those flags of run that choose ids.
func updateFlags() []string {
	return []string{"userns", "uidmap", "gidmap", "subuidname", "subgidname"}
}

func setupUpdate(fs *pflag.FlagSet) action {
	all := cmdline.NewFlagSet("run")
	cmdline.RunFlags(all, true)
	for _, name := range updateFlags() {
		if f := all.Lookup(name); f != nil {
			fs.AddFlag(f)
		}
	}
	limits := cmdline.ResourceFlags(fs)
	restart := fs.String("restart", "", "Restart policy to apply when a container exits")
	return func(c *Client, args []string) error {
		r, err := limits.Resolve()
		if err != nil {
			return err
		}
		set := func(name string) error {
			if !limits.Changed() {
				return nil
			}
			return c.updateResources(name, r)
		}
		if fs.Changed("restart") {
			return c.updateRestart(fs, args, *restart, set)
		}
		if limits.Changed() && !slices.ContainsFunc(updateFlags(), fs.Changed) {
			return c.each(args, set)
		}
		u, caller, err := parseUserns(fs)
		if err != nil {
			return err
		}
		return c.each(args, func(name string) error {
			if err := c.call(wire.Update, wire.PackUpdate(name, u, caller), nil); err != nil {
				return err
			}
			return set(name)
		})
	}
}

// updateRestart changes the restart policy, which needs no stopped container as
// other ids do, after what set does.
func (c *Client) updateRestart(fs *pflag.FlagSet, args []string, text string, set func(name string) error) error {
	p, err := ask.ParseRestart(text)
	if err != nil {
		return cmdline.Usage("update", err)
	}
	for _, name := range updateFlags() {
		if fs.Changed(name) {
			return cmdline.Usage("update", fault.Say(fault.Invalid, "--restart does not go with --"+name+": other ids need a stopped container"))
		}
	}
	return c.each(args, func(name string) error {
		if err := set(name); err != nil {
			return err
		}
		return c.call(wire.UpdateRestart, wire.RestartCall{ID: name, Policy: p}, nil)
	})
}

// parseUserns reads the flags of update as run reads its own.
func parseUserns(fs *pflag.FlagSet) (ask.Userns, *ask.Caller, error) {
	var words []string
	fs.Visit(func(f *pflag.Flag) {
		if !slices.Contains(updateFlags(), f.Name) {
			return
		}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			for _, v := range list.GetSlice() {
				words = append(words, "--"+f.Name+"="+v)
			}
			return
		}
		words = append(words, "--"+f.Name+"="+f.Value.String())
	})
	if len(words) == 0 {
		f := fault.Say(fault.Invalid, "\"fief update\" needs --restart, --userns, --uidmap or --gidmap, or limits.")
		f.Hint, f.ExitCode = "See 'fief update --help'.", 125
		return nil, nil, f
	}
	r, err := cmdline.ParseRun(append(words, "image"), here())
	var f *fault.Error
	if errors.As(err, &f) && f.ExitCode == 0 { // as any flag that is wrong
		wrong := *f
		wrong.ExitCode = 125
		err = &wrong
	}
	return r.Ask.Userns, r.Ask.Caller, err
}
