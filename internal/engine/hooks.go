package engine

import (
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/spec"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// bundleDir is where the bundle for hooks is made, in the run directory.
const bundleDir = "bundle"

// hookOutput is the name of the file that takes what createContainer hooks print.
const hookOutput = "hooks:output"

// hooked makes what the hooks of a device's description need, and has config say
// where they find the container's root.
func (e *Engine) hooked(b *bundle, rec record.Container, config *specs.Spec, pair idmap.Pair) error {
	if err := onlyCreateContainer(rec, config.Hooks); err != nil {
		return err
	}
	h, err := spec.ForHooks(config, rec.ID, filepath.Join(e.runDir(rec.ID), bundleDir), e.cfg.ExecRoot, pair)
	if err != nil {
		return err
	}
	config.Root.Path = h.Root
	b.files["hooks:bundle"], b.files["hooks:createContainer"], b.files[hookOutput] = h.Bundle, h.State, h.Output
	return nil
}

// onlyCreateContainer refuses hooks that nobody would run.
func onlyCreateContainer(rec record.Container, h *specs.Hooks) error {
	asked := strings.Join(rec.Resources.CDI, ", ")
	for kind, list := range map[string][]specs.Hook{
		//lint:ignore SA1019 a description may still have them
		"prestart":       h.Prestart,
		"createRuntime":  h.CreateRuntime,
		"startContainer": h.StartContainer, "poststart": h.Poststart, "poststop": h.Poststop,
	} {
		if len(list) > 0 {
			return fault.New(fault.Unsupported, "use device", asked, "its description has a "+kind+" hook, "+list[0].Path+", which would not be run",
				"a description whose hooks are createContainer hooks, as those for GPUs are")
		}
	}
	if !isOwn(rec) {
		return fault.New(fault.Unsupported, "use device", asked, "its description has hooks, which are not run with runtime "+rec.Runtime, "use --runtime fief")
	}
	return nil
}
