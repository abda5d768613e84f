package image

import (
	"encoding/json"
	"errors"
	"path"
	"strconv"
	"strings"
	"time"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// apply changes the config by one Dockerfile instruction (Dockerfile
// reference; those that `docker commit --change` takes, SHELL, and Podman's form
// VERB=argument).
func (c *configRun) apply(line string) error {
	verb, rest, ok := strings.Cut(strings.TrimSpace(line), " ")
	if !ok {
		verb, rest, _ = strings.Cut(verb, "=")
	}
	rest = strings.TrimSpace(rest)
	verb = strings.ToUpper(verb)
	if rest == "" {
		return badChange(line, verb+" needs an argument")
	}
	switch verb {
	case "CMD":
		c.Cmd = command(rest)
	case "ENTRYPOINT":
		c.Entrypoint = command(rest)
	case "USER":
		c.User = rest
	case "WORKDIR":
		c.WorkingDir = path.Join("/", c.WorkingDir, rest)
		if path.IsAbs(rest) {
			c.WorkingDir = rest
		}
	case "STOPSIGNAL":
		c.StopSignal = rest
	case "SHELL":
		if json.Unmarshal([]byte(rest), &c.Shell) != nil {
			return badChange(line, "SHELL takes a JSON list")
		}
	case "ENV":
		return c.env(line, rest)
	case "LABEL":
		return c.label(line, rest)
	case "EXPOSE":
		return c.expose(line, rest)
	case "VOLUME":
		return c.volume(line, rest)
	case "ONBUILD":
		return c.onBuild(line, rest)
	case "HEALTHCHECK":
		return c.health(line, rest)
	default:
		return badChange(line, verb+" is not a valid change command")
	}
	return nil
}

func badChange(line, why string) error {
	return fault.New(fault.Invalid, "apply change", short(line), why, "")
}

// command is the exec form, a JSON list, or else the shell form.
func command(rest string) words {
	var list []string
	if strings.HasPrefix(rest, "[") && json.Unmarshal([]byte(rest), &list) == nil {
		return list
	}
	return words{"/bin/sh", "-c", rest}
}

func (c *configRun) env(line, rest string) error {
	pairs, err := assignments(line, rest)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		c.Env = setEnv(c.Env, p[0], p[1])
	}
	return nil
}

func setEnv(env []string, name, value string) []string {
	for i, e := range env {
		if strings.HasPrefix(e, name+"=") {
			env[i] = name + "=" + value
			return env
		}
	}
	return append(env, name+"="+value)
}

func (c *configRun) label(line, rest string) error {
	pairs, err := assignments(line, rest)
	if err != nil {
		return err
	}
	if c.Labels == nil {
		c.Labels = map[string]string{}
	}
	for _, p := range pairs {
		c.Labels[p[0]] = p[1]
	}
	return nil
}

func (c *configRun) expose(line, rest string) error {
	list, err := fields(line, rest)
	if err != nil {
		return err
	}
	if c.ExposedPorts == nil {
		c.ExposedPorts = map[string]struct{}{}
	}
	for _, port := range list {
		if !strings.Contains(port, "/") {
			port += "/tcp"
		}
		c.ExposedPorts[port] = struct{}{}
	}
	return nil
}

func (c *configRun) volume(line, rest string) error {
	var list []string
	if !strings.HasPrefix(rest, "[") || json.Unmarshal([]byte(rest), &list) != nil {
		var err error
		if list, err = fields(line, rest); err != nil {
			return err
		}
	}
	if c.Volumes == nil {
		c.Volumes = map[string]struct{}{}
	}
	for _, v := range list {
		if v == "" {
			return badChange(line, "a volume needs a path")
		}
		c.Volumes[v] = struct{}{}
	}
	return nil
}

// onBuild notes an instruction for builds that begin with the image. Those that
// are refused are so by the Dockerfile reference.
func (c *configRun) onBuild(line, rest string) error {
	verb, _, _ := strings.Cut(rest, " ")
	switch strings.ToUpper(verb) {
	case "ONBUILD", "FROM", "MAINTAINER":
		return badChange(line, strings.ToUpper(verb)+" isn't allowed as an ONBUILD trigger")
	}
	c.OnBuild = append(c.OnBuild, rest)
	return nil
}

func (c *configRun) health(line, rest string) error {
	var h record.Health
	for strings.HasPrefix(rest, "--") {
		option, after, _ := strings.Cut(rest, " ")
		if err := healthOption(&h, strings.TrimPrefix(option, "--")); err != nil {
			return badChange(line, err.Error())
		}
		rest = strings.TrimSpace(after)
	}
	verb, test, _ := strings.Cut(rest, " ")
	test = strings.TrimSpace(test)
	switch verb = strings.ToUpper(verb); {
	case verb == "NONE" && test == "":
		h = record.Health{Test: []string{"NONE"}}
	case verb != "CMD":
		return badChange(line, "HEALTHCHECK takes NONE or CMD")
	case test == "":
		return badChange(line, "missing command after HEALTHCHECK CMD")
	case json.Unmarshal([]byte(test), &h.Test) == nil && len(h.Test) > 0:
		h.Test = append([]string{"CMD"}, h.Test...)
	default:
		h.Test = []string{"CMD-SHELL", test}
	}
	c.Healthcheck = &h
	return nil
}

// healthOption reads NAME=VALUE. Docker takes no time below a millisecond.
func healthOption(h *record.Health, text string) (err error) {
	name, value, _ := strings.Cut(text, "=")
	if name == "retries" {
		if h.Retries, err = strconv.Atoi(value); err != nil || h.Retries < 0 {
			return errors.New("--retries must be a number")
		}
		return nil
	}
	to, ok := map[string]*time.Duration{"interval": &h.Interval, "timeout": &h.Timeout, "start-period": &h.StartPeriod, "start-interval": &h.StartInterval}[name]
	if !ok {
		return errors.New("there is no option --" + name)
	}
	if *to, err = time.ParseDuration(value); err != nil || *to < time.Millisecond && *to != 0 {
		return errors.New("--" + name + " must be a time of 1ms at least")
	}
	return nil
}

// assignments reads NAME=VALUE …, or the old form NAME VALUE.
func assignments(line, rest string) ([][2]string, error) {
	list, err := fields(line, rest)
	if err != nil {
		return nil, err
	}
	if name, value, _ := strings.Cut(rest, " "); !strings.Contains(name, "=") {
		if strings.TrimSpace(value) == "" {
			return nil, badChange(line, "there is no value")
		}
		return [][2]string{{name, strings.TrimSpace(value)}}, nil
	}
	var out [][2]string
	for _, f := range list {
		name, value, ok := strings.Cut(f, "=")
		if !ok || name == "" {
			return nil, badChange(line, "each part must be NAME=VALUE")
		}
		out = append(out, [2]string{name, value})
	}
	return out, nil
}

// fields splits at spaces outside quotes and takes quotes and backslashes away.
func fields(line, rest string) ([]string, error) {
	var out []string
	var word strings.Builder
	var quote byte
	open := false
	for i := 0; i < len(rest); i++ {
		c := rest[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(rest):
			i++
			word.WriteByte(rest[i])
			open = true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, open = c, true
		case quote == 0 && (c == ' ' || c == '\t'):
			if open {
				out = append(out, word.String())
			}
			word.Reset()
			open = false
		default:
			word.WriteByte(c)
			open = true
		}
	}
	if quote != 0 {
		return nil, badChange(line, "a quote is not closed")
	}
	if open {
		out = append(out, word.String())
	}
	return out, nil
}
