package cli

import (
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"fief/internal/door/native/wire"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

func setupLogs(fs *pflag.FlagSet) action {
	follow := fs.BoolP("follow", "f", false, "Follow log output")
	since := fs.String("since", "", `Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	until := fs.String("until", "", `Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	tail := fs.StringP("tail", "n", "all", "Number of lines to show from the end of the logs")
	stamps := fs.BoolP("timestamps", "t", false, "Show timestamps")
	details := fs.Bool("details", false, "Show extra details provided to logs")
	return func(c *Client, args []string) error {
		l := ask.Logs{Stdout: true, Stderr: true, Follow: *follow, Tail: -1}
		var err error
		now := time.Now()
		if *since != "" {
			if l.Since, err = parseTime(*since, now); err != nil {
				return err
			}
		}
		if *until != "" {
			if l.Until, err = parseTime(*until, now); err != nil {
				return err
			}
		}
		if l.Tail, err = parseTail(*tail); err != nil {
			return err
		}
		return c.logs(args[0], l, printer{out: c.Out, err: c.Err, stamps: *stamps, details: *details})
	}
}

func parseTail(s string) (int, error) {
	if s == "all" {
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fault.Say(fault.Invalid, "invalid tail value: \""+s+"\"")
	}
	return n, nil
}

// logs prints a container's log. While following it outlives the daemon: the
// next one is asked for the lines since the last one printed.
func (c *Client) logs(id string, l ask.Logs, p printer) error {
	connect := Connect
	for {
		conn, err := connect(c.Socket)
		if err != nil {
			return err
		}
		err = conn.Call(wire.Logs, wire.LogsCall{ID: id, Logs: l}, nil, p.message)
		conn.Close()
		if !l.Follow || !gone(err) {
			return err
		}
		connect = Reconnect
		p.resume()
		if !p.last.IsZero() {
			l.Since, l.Tail = p.last, -1
		}
	}
}

// printer writes log lines, each once.
type printer struct {
	out, err io.Writer
	stamps   bool
	details  bool
	last     time.Time // of the newest line printed
	same     int       // lines printed with that time
	skip     int       // lines of that time still to be skipped after a reconnection
	partial  bool      // the line before did not end
}

// resume is called before the lines since last come again: since is inclusive,
// and lines may share a time.
func (p *printer) resume() { p.skip = p.same }

func (p *printer) message(m wire.Message) error {
	if m.Kind != wire.Data {
		return nil
	}
	return wire.Lines(m.Body, p.line)
}

func (p *printer) line(l record.LogLine) error {
	if p.skip > 0 && l.At.Before(p.last) {
		return nil
	}
	if p.skip > 0 && l.At.Equal(p.last) {
		p.skip--
		return nil
	}
	p.skip = 0
	if !l.At.Equal(p.last) {
		p.last, p.same = l.At, 0
	}
	p.same++
	text := string(l.Text)
	if p.details && !p.partial {
		text = l.Details() + " " + text
	}
	if p.stamps && !p.partial {
		text = l.At.UTC().Format("2006-01-02T15:04:05.000000000Z07:00") + " " + text
	}
	p.partial = !strings.HasSuffix(text, "\n")
	w := p.out
	if l.Stream == "stderr" {
		w = p.err
	}
	_, err := io.WriteString(w, text)
	if err != nil {
		return errPipe
	}
	return nil
}
