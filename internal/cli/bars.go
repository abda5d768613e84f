package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"fief/internal/cli/show"
	"fief/internal/door/native/wire"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// fileWriter is where progress goes; when it is a terminal, bars are drawn.
type fileWriter = io.Writer

// bars shows the progress of long work: a line for each part, drawn over on a
// terminal, and elsewhere one line each time that a part's sentence changes.
//
// Written here because the initialisation of the bar libraries, with the
// width tables and regular expressions they need, costs every start of fief
// more than all of the rest.
type bars struct {
	w      io.Writer
	quiet  bool
	width  int      // columns of the terminal; 0: none
	order  []string // parts in the order of their first line
	drawn  map[string]string
	status map[string]string
}

func newBars(w io.Writer, quiet bool) *bars {
	b := &bars{w: w, quiet: quiet, drawn: map[string]string{}, status: map[string]string{}}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		if cols, _, err := term.GetSize(int(f.Fd())); err == nil && cols > 0 {
			b.width = cols
		}
	}
	return b
}

// message shows a Progress message and ignores others.
func (b *bars) message(m wire.Message) error {
	if m.Kind != wire.Progress || b.quiet {
		return nil
	}
	var p record.Progress
	if err := json.Unmarshal(m.Body, &p); err != nil {
		return fault.Wrap(fault.Corrupt, "read progress", "", err, "fief and fiefd may be of different builds")
	}
	b.show(p)
	return nil
}

func (b *bars) show(p record.Progress) {
	if p.ID == "" {
		fmt.Fprint(b.w, clean(p.Status)+b.newline())
		b.forget()
		return
	}
	if b.width == 0 {
		if b.status[p.ID] != p.Status {
			b.status[p.ID] = p.Status
			fmt.Fprintf(b.w, "%s: %s\n", clean(p.ID), clean(p.Status))
		}
		return
	}
	text := show.Ellipsis(clean(p.ID)+": "+clean(p.Status)+bar(p, b.width), b.width)
	if b.drawn[p.ID] == text {
		return
	}
	if _, known := b.drawn[p.ID]; !known {
		b.order = append(b.order, p.ID)
		fmt.Fprint(b.w, "\n")
	}
	b.drawn[p.ID] = text
	b.redraw(p.ID, text)
}

// redraw goes up to a part's line, writes it and comes down again.
func (b *bars) redraw(id, text string) {
	for i, other := range b.order {
		if other == id {
			up := len(b.order) - i
			fmt.Fprintf(b.w, "\x1b[%dA\r\x1b[2K%s\x1b[%dB\r", up, text, up)
			return
		}
	}
}

func (b *bars) newline() string {
	if b.width > 0 {
		return "\x1b[K\r\n"
	}
	return "\n"
}

// forget ends the block of lines that can be drawn over: a sentence was
// written below it.
func (b *bars) forget() {
	b.order = nil
	clear(b.drawn)
}

// end is called after the last message.
func (b *bars) end() { b.forget() }

// bar draws "[====>    ] 1.2MB/3MB" in half of the terminal.
func bar(p record.Progress, width int) string {
	if p.Current <= 0 && p.Total <= 0 {
		return ""
	}
	numbers := show.Bytes(p.Current)
	if p.Total <= 0 {
		return " " + numbers
	}
	numbers += "/" + show.Bytes(p.Total)
	cells := min(50, width/2-len(numbers))
	if cells < 10 {
		return " " + numbers
	}
	full := int(min(p.Current, p.Total) * int64(cells) / p.Total)
	if full == 0 {
		return " [" + strings.Repeat(" ", cells) + "] " + numbers
	}
	return " [" + strings.Repeat("=", full-1) + ">" + strings.Repeat(" ", cells-full) + "] " + numbers
}

// clean drops control characters: a registry's words must not move the cursor.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return -1
		}
		return r
	}, s)
}
