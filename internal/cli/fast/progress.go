package fast

import (
	"encoding/json"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"fief/internal/words/record"
)

// progressed shows how far long work before the start is: on a terminal, to whoever
// stays.
func (c *Call) progressed(body []byte) {
	var p record.Progress
	if c.Detach || c.Quiet || json.Unmarshal(body, &p) != nil {
		return
	}
	c.progress(fmt.Sprintf("%s of %s: %d files", p.Status, p.ID, p.Current))
}

// progress writes a line over the one that is there, or takes it away.
func (c *Call) progress(line string) {
	if line == "" && !c.shown {
		return
	}
	if _, err := unix.IoctlGetTermios(int(os.Stderr.Fd()), unix.TCGETS); err != nil {
		return
	}
	c.shown = line != ""
	os.Stderr.WriteString("\r\x1b[K" + line)
}
