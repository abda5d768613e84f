package cmdline

import (
	"strconv"
	"strings"

	"fief/internal/words/ask"
	"fief/internal/words/idmap"
)

func (o *RunOptions) security(r *Run, c Client) error {
	for _, opt := range o.securityOpt {
		if err := securityOpt(&r.Ask, opt, c); err != nil {
			return err
		}
	}
	return nil
}

func securityOpt(a *ask.Container, opt string, c Client) error {
	key, value, ok := strings.Cut(opt, "=")
	if !ok {
		key, value, ok = strings.Cut(opt, ":")
	}
	switch {
	case key == "no-new-privileges" && !ok:
		a.NoNewPrivs = true
	case key == "no-new-privileges":
		on, err := strconv.ParseBool(value)
		if err != nil {
			return invalid("--security-opt", opt, "no-new-privileges is true or false")
		}
		a.NoNewPrivs = on
	case key == "seccomp" && value == "unconfined":
		a.Seccomp = ask.Seccomp{Mode: ask.SeccompUnconfined}
	case key == "seccomp" && value == "builtin":
		a.Seccomp = ask.Seccomp{}
	case key == "seccomp" && value != "":
		profile, err := c.read("--security-opt", value)
		if err != nil {
			return conflict("opening seccomp profile (" + value + ") failed: " + err.Error())
		}
		a.Seccomp = ask.Seccomp{Mode: ask.SeccompProfile, Profile: profile}
	default:
		return invalid("--security-opt", opt, "options are seccomp=PROFILE and no-new-privileges")
	}
	return nil
}

// identity chooses the user namespace. Of --uidmap and --gidmap one stands for
// both when the other is missing.
func (o *RunOptions) identity(r *Run, _ Client) error {
	mapped := len(o.uidMaps) > 0 || len(o.gidMaps) > 0
	if mapped && o.userns != "" && o.userns != "private" {
		return conflict("conflicting options: --uidmap and --gidmap cannot be used with --userns=" + o.userns)
	}
	if mapped {
		return o.maps(r)
	}
	size, sized := strings.CutPrefix(o.userns, "auto:size=")
	switch {
	case o.userns == "" || o.userns == "private":
		r.Ask.Userns = ask.UsernsDefault{}
	case o.userns == "host":
		r.Ask.Userns = ask.UsernsHost{}
	case o.userns == "auto":
		r.Ask.Userns = ask.UsernsAuto{}
	case sized:
		n, err := strconv.ParseUint(size, 10, 32)
		if err != nil || n == 0 {
			return invalid("--userns", o.userns, "size is a number of ids")
		}
		r.Ask.Userns = ask.UsernsAuto{Size: uint32(n)}
	default:
		return invalid("--userns", o.userns, "invalid USER mode: use host, auto[:size=N] or private")
	}
	return nil
}

func (o *RunOptions) maps(r *Run) error {
	pair, err := idmap.ParsePair(o.uidMaps, o.gidMaps)
	r.Ask.Userns = ask.UsernsMap{Pair: pair}
	return err
}
