package docker

import (
	"bufio"
	"net/http"
	"strconv"
	"time"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// logTime is RFC 3339 with all nine digits, so that lines align.
const logTime = "2006-01-02T15:04:05.000000000Z07:00"

func (d *door) logs(w http.ResponseWriter, r *request) error {
	which, err := r.whichLogs()
	if err != nil {
		return err
	}
	c, err := d.engine.Inspect(r.Context(), r.name)
	if err != nil {
		return err
	}
	if c.Log.Driver == "none" {
		return fault.Say(fault.Unsupported, "configured logging driver does not support reading")
	}
	w.Header().Set("Content-Type", streamMedia(!c.TTY, r.version))
	w.WriteHeader(http.StatusOK)
	flush(w)

	// Followed lines are sent one by one; past ones in large pieces.
	buf := bufio.NewWriterSize(w, 64<<10)
	out := &muxer{w: buf, framed: !c.TTY}
	lines := logWriter{out: out, stamps: r.truth("timestamps"), details: r.truth("details")}
	err = d.engine.Logs(r.Context(), c.ID, which, func(l record.LogLine) error {
		if err := lines.write(l); err != nil || !which.Follow {
			return err
		}
		if err := buf.Flush(); err != nil {
			return err
		}
		flush(w)
		return nil
	})
	if err != nil && r.Context().Err() == nil {
		// The client reads a stream by now, so that is where the error goes.
		out.say(streamSys, "Error grabbing logs: "+message(err)+"\n")
	}
	buf.Flush()
	return nil
}

func (r *request) whichLogs() (l ask.Logs, err error) {
	l = ask.Logs{Stdout: r.truth("stdout"), Stderr: r.truth("stderr"), Follow: r.truth("follow"), Tail: -1}
	if !l.Stdout && !l.Stderr {
		return l, invalid("Bad parameters: you must choose at least one stream")
	}
	if l.Since, err = parseTime("since", r.Form.Get("since")); err != nil {
		return l, err
	}
	if l.Until, err = parseTime("until", r.Form.Get("until")); err != nil {
		return l, err
	}
	// Anything that is no number means all, as Docker has it.
	if n, err := strconv.Atoi(r.Form.Get("tail")); err == nil && n >= 0 {
		l.Tail = n
	}
	return l, nil
}

// logWriter sends log lines. Its buffer is kept from line to line.
type logWriter struct {
	out             *muxer
	stamps, details bool
	piece           []byte
}

func (lw *logWriter) write(l record.LogLine) error {
	p := append(lw.piece[:0], make([]byte, frameHeader)...)
	if lw.stamps {
		p = append(l.At.In(time.UTC).AppendFormat(p, logTime), ' ')
	}
	if lw.details {
		p = append(append(p, l.Details()...), ' ')
	}
	p = append(p, l.Text...)
	lw.piece = p
	return lw.out.put(streamOf(l), p)
}
