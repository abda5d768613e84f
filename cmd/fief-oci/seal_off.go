//go:build weak

package main

import (
	"slices"

	"golang.org/x/sys/unix"

	"fief/internal/words/plan"
)

const sealing = false

// soften has what is to be masked looked up by its name from the root on.
func soften(p *plan.Plan) {
	root := plan.Slot(slices.Index(p.Slots, "rootfs") + 1)
	for _, s := range p.Steps {
		if s.Verb != "mask" && s.Verb != "read-only" {
			continue
		}
		for i := range s.Ops {
			if o := &s.Ops[i]; o.Kind == plan.Call && o.Nr == unix.SYS_OPENAT2 {
				o.Args[0], o.Args[1] = plan.In(root), plan.Str(s.Object[1:])
				break
			}
		}
	}
}
