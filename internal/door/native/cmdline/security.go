package cmdline

import (
	"strconv"
	"strings"

	"fief/internal/words/ask"
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
