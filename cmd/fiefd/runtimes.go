package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"

	"fief/internal/engine"
	"fief/internal/runtime/foreign"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// builtinRuntime is fief's own launch path.
const builtinRuntime = "fief"

// runtimeSettings is a table [runtimes.NAME] of fief.toml.
type runtimeSettings struct {
	Path    string   `toml:"path"`
	Args    []string `toml:"args"`
	Timeout string   `toml:"timeout"` // of a call
}

// runtimes returns the names that --runtime and --default-runtime may have, and
// what stands behind those that are not fief's own.
func (s settings) runtimes() (names []string, others map[string]engine.Runtime, err error) {
	others = map[string]engine.Runtime{}
	add := func(said, name string, r engine.Runtime) error {
		switch _, twice := others[name]; {
		case name == "" || strings.ContainsAny(name, "/ \t\n"):
			return fault.New(fault.Invalid, "use", said, "it has no name that can be asked for", "")
		case name == builtinRuntime || twice:
			return fault.New(fault.Invalid, "use", said, "there is a runtime of that name", "choose another one")
		case !filepath.IsAbs(r.Path):
			return fault.New(fault.Invalid, "use", said, "its path is not absolute", "")
		}
		others[name] = r
		return nil
	}
	for _, r := range s.AddRuntime {
		name, path, ok := strings.Cut(r, "=")
		if !ok || name == "" || !filepath.IsAbs(path) {
			return nil, nil, fault.New(fault.Invalid, "use", "--add-runtime "+r, "it is not NAME=/PATH", "")
		}
		if err := add("--add-runtime "+r, name, engine.Runtime{Path: path}); err != nil {
			return nil, nil, err
		}
	}
	for name, r := range s.Runtimes {
		said := "[runtimes." + name + "]"
		limit := time.Duration(0)
		if r.Timeout != "" {
			if limit, err = time.ParseDuration(r.Timeout); err != nil || limit < time.Second || limit > time.Hour {
				return nil, nil, fault.New(fault.Invalid, "use", said, "timeout is no duration from 1s to 1h", "")
			}
		}
		if err := add(said, name, engine.Runtime{Path: r.Path, Args: r.Args, Limit: limit}); err != nil {
			return nil, nil, err
		}
	}
	for name := range others {
		names = append(names, name)
	}
	slices.Sort(names)
	names = append([]string{builtinRuntime}, names...)
	if !slices.Contains(names, s.DefaultRuntime) {
		return nil, nil, fault.New(fault.Invalid, "use", "--default-runtime "+s.DefaultRuntime, "no runtime has that name",
			"register it with --add-runtime NAME=PATH")
	}
	return names, others, nil
}

// runtimes calls other OCI runtimes and remembers what each binary is.
type runtimes struct {
	foreign.Caller
	mu   sync.Mutex
	know map[binary]engine.Traits // guarded by mu
}

// binary is a file as it was when it was looked at.
type binary struct {
	dev, ino uint64
	changed  unix.Timespec
}

func newRuntimes(monitor string) *runtimes {
	return &runtimes{Caller: foreign.Caller{Binary: monitor}, know: map[binary]engine.Traits{}}
}

// asking bounds how long a runtime may take to say what it is, and answerSize
// what of it is read.
const (
	asking     = 10 * time.Second
	answerSize = 1 << 20
)

// Know asks a binary for its version and its features, once as long as it stays
// the same file. What has no answer is no error: it is a runtime of which nothing
// is known.
func (r *runtimes) Know(path string) (engine.Traits, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return engine.Traits{}, fault.Wrap(fault.Invalid, "use runtime", path, err, "it is registered with fiefd: install it, or register where it is")
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o111 == 0 {
		return engine.Traits{}, fault.New(fault.Invalid, "use runtime", path, "it is no program", "register where it is with fiefd")
	}
	key := binary{uint64(st.Dev), st.Ino, st.Mtim}
	r.mu.Lock()
	defer r.mu.Unlock()
	if t, ok := r.know[key]; ok {
		return t, nil
	}
	var t engine.Traits
	version, err := answerOf(path, "--version")
	if errors.Is(err, context.DeadlineExceeded) {
		return t, fault.Wrap(fault.Unavailable, "ask for the version of runtime", path, err, "")
	}
	switch name, _, _ := strings.Cut(string(version), " "); record.RuntimeKind(name) {
	case record.Crun, record.Runsc:
		t.Kind = record.RuntimeKind(name)
	}
	if text, err := answerOf(path, "features"); err == nil {
		f := &features.Features{}
		if json.Unmarshal(text, f) == nil && f.OCIVersionMin != "" {
			t.Features = f
		}
	}
	r.know[key] = t
	return t, nil
}

// answerOf is what a program says to one word.
func answerOf(path, word string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), asking)
	defer cancel()
	out := &bounded{}
	cmd := exec.CommandContext(ctx, path, word)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.WaitDelay = "/", []string{"PATH=" + os.Getenv("PATH")}, out, time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return out.text, err
}

// bounded keeps the beginning of what is written to it.
type bounded struct{ text []byte }

func (b *bounded) Write(p []byte) (int, error) {
	b.text = append(b.text, p[:min(len(p), answerSize-len(b.text))]...)
	return len(p), nil
}
