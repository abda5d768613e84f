package show

import (
	"fmt"
	"strings"

	"github.com/docker/go-units"

	"fief/internal/words/record"
)

// Info is the text of `info`.
func Info(i record.Info, client string) string {
	var b strings.Builder
	row := func(indent int, name string, value any) {
		fmt.Fprintf(&b, "%s%s: %v\n", strings.Repeat(" ", indent), name, value)
	}
	b.WriteString("Client:\n")
	row(1, "Version", client)
	b.WriteString("\nServer:\n")
	row(1, "Containers", i.Containers)
	row(2, "Running", i.Running)
	row(2, "Stopped", i.Stopped)
	row(1, "Images", i.Images)
	row(1, "Server Version", i.Version)
	row(1, "Storage Filesystem", i.StorageFS)
	row(2, "Ids shown by", i.Shift)
	if i.ShiftWhy != "" {
		row(2, "Nothing better because", i.ShiftWhy)
	}
	row(1, "Cgroup Driver", i.CgroupDriver)
	row(1, "Cgroup Version", i.CgroupVersion)
	row(1, "Runtimes", strings.Join(i.Runtimes, " "))
	row(1, "Default Runtime", i.DefaultRuntime)
	identities(&b, i)
	row(1, "Kernel Version", i.Kernel)
	row(1, "Operating System", i.OS)
	row(1, "OSType", i.OSType)
	row(1, "Architecture", i.Arch)
	row(1, "CPUs", i.NCPU)
	row(1, "Total Memory", units.BytesSize(float64(i.MemTotal)))
	row(1, "Name", i.Name)
	row(1, "ID", i.ID)
	row(1, "Root Dir", i.DataRoot)
	row(1, "Exec Root", i.ExecRoot)
	row(1, "Debug Mode", i.Debug)
	if len(i.InsecureRegistries) > 0 {
		b.WriteString(" Insecure Registries:\n")
		for _, r := range i.InsecureRegistries {
			b.WriteString("  " + r + "\n")
		}
	}
	return b.String()
}

func identities(b *strings.Builder, i record.Info) {
	b.WriteString(" Security Options:\n  seccomp\n   Profile: builtin\n")
	if i.Userns {
		b.WriteString("  userns\n")
	}
	if i.RemapUser != "" {
		fmt.Fprintf(b, "   Remapped to: %s\n", i.RemapUser)
	}
	fmt.Fprintf(b, " Host Ids: %d-%d (%d ranges granted, %d free)\n", i.Pool.First, i.Pool.Last, i.Pool.Granted, i.Pool.Free)
}
