package logread

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// ReadJournal is Read of what the driver journald has sent for a container. It
// asks journalctl, which must be there: journald's files have no other reader
// that is kept up with their format.
func ReadJournal(ctx context.Context, id string, q ask.Logs, ended <-chan struct{}, emit func(record.LogLine) error) error {
	if _, err := exec.LookPath("journalctl"); err != nil {
		return fault.New(fault.Unsupported, "read", "the journal", "journalctl is not installed", "install systemd, or use --log-driver json-file or local")
	}
	j := &journalReader{id: id, q: q, emit: emit}
	if !q.Follow {
		return j.run(ctx, j.query())
	}
	following, stop := context.WithCancel(ctx)
	defer stop()
	if !q.Until.IsZero() {
		var cancel context.CancelFunc
		following, cancel = context.WithDeadline(following, q.Until)
		defer cancel()
	}
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-ended:
			stop()
		case <-over:
		}
	}()
	err := j.run(following, append(j.query(), "--follow"))
	switch {
	case ctx.Err() != nil:
		return canceled(ctx)
	case following.Err() == nil || errors.Is(following.Err(), context.DeadlineExceeded):
		return err
	}
	// The container has ended: journald may not have noted its last lines yet.
	exec.CommandContext(ctx, "journalctl", "--sync").Run()
	return j.run(ctx, append(j.match(), "--after-cursor="+j.cursor))
}

// journalReader is one ReadJournal.
type journalReader struct {
	id     string
	q      ask.Logs
	emit   func(record.LogLine) error
	cursor string // of the newest entry seen
	failed error  // what emit returned
}

func (j *journalReader) match() []string {
	return []string{"--output=json", "--all", "--no-pager", "--quiet", "CONTAINER_ID_FULL=" + j.id}
}

func (j *journalReader) query() []string {
	args := j.match()
	if j.q.Tail >= 0 {
		args = append(args, "--lines="+strconv.Itoa(j.q.Tail))
	} else {
		args = append(args, "--no-tail")
	}
	for flag, at := range map[string]time.Time{"--since=@": j.q.Since, "--until=@": j.q.Until} {
		if !at.IsZero() && !(j.q.Follow && flag == "--until=@") { // which does not go with --follow
			args = append(args, flag+strconv.FormatFloat(float64(at.UnixMicro())/1e6, 'f', 6, 64))
		}
	}
	return args
}

// run reads what journalctl says until its end or ctx's, which is no error.
func (j *journalReader) run(ctx context.Context, args []string) error {
	if strings.HasSuffix(args[len(args)-1], "--after-cursor=") { // nothing was seen yet
		args = args[:len(args)-1]
	}
	cmd := exec.CommandContext(ctx, "journalctl", args...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return fault.Wrap(fault.Unavailable, "read", "the journal", err, "")
	}
	err = j.entries(out)
	if err != nil {
		cmd.Process.Kill()
	}
	werr := cmd.Wait()
	switch {
	case j.failed != nil:
		return j.failed
	case ctx.Err() != nil:
		return nil
	case err == nil && werr != nil && cmd.ProcessState.ExitCode() != 1: // 1: no entries
		err = errors.New(strings.TrimSpace(said.String()) + " (" + werr.Error() + ")")
	}
	return fault.Wrap(fault.Unavailable, "read", "the journal", err, "")
}

func (j *journalReader) entries(out io.Reader) error {
	lines := bufio.NewReaderSize(out, 64<<10)
	for {
		raw, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		l, cursor, ok := parseJournal(raw)
		if cursor != "" {
			j.cursor = cursor
		}
		if !ok || !wants(j.q, l.Stream) || !j.q.Until.IsZero() && l.At.After(j.q.Until) {
			continue
		}
		if j.failed = j.emit(l); j.failed != nil {
			return j.failed
		}
	}
}

// ownFields are those that say what a line is, and are no attributes of it.
var ownFields = map[string]bool{
	"MESSAGE": true, "PRIORITY": true, "SYSLOG_IDENTIFIER": true, "SYSLOG_TIMESTAMP": true, "IMAGE_NAME": true, "CONTAINER_ID": true,
	"CONTAINER_ID_FULL": true, "CONTAINER_NAME": true, "CONTAINER_TAG": true, "CONTAINER_LOG_ORDINAL": true,
	"CONTAINER_PARTIAL_MESSAGE": true, "CONTAINER_PARTIAL_ID": true, "CONTAINER_PARTIAL_ORDINAL": true, "CONTAINER_PARTIAL_LAST": true,
}

// parseJournal reads one entry of `journalctl --output=json`.
func parseJournal(raw []byte) (l record.LogLine, cursor string, ok bool) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return l, "", false
	}
	cursor = string(fieldText(fields["__CURSOR"]))
	l.Text, l.Stream = fieldText(fields["MESSAGE"]), "stdout"
	if string(fieldText(fields["PRIORITY"])) == "3" {
		l.Stream = "stderr"
	}
	at, err := time.Parse(time.RFC3339Nano, string(fieldText(fields["SYSLOG_TIMESTAMP"])))
	if err != nil {
		micro, _ := strconv.ParseInt(string(fieldText(fields["__REALTIME_TIMESTAMP"])), 10, 64)
		at = time.UnixMicro(micro)
	}
	l.At = at
	if string(fieldText(fields["CONTAINER_PARTIAL_MESSAGE"])) != "true" {
		l.Text = append(l.Text, '\n')
	}
	for name, value := range fields {
		if name[0] != '_' && !ownFields[name] {
			if l.Attrs == nil {
				l.Attrs = map[string]string{}
			}
			l.Attrs[name] = string(fieldText(value))
		}
	}
	return l, cursor, fields["MESSAGE"] != nil
}

// fieldText reads a value: a string, an array of bytes where it is no text, or
// an array of such, of which the first counts.
func fieldText(raw json.RawMessage) []byte {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return []byte(text)
	}
	var numbers []uint16
	if json.Unmarshal(raw, &numbers) == nil {
		out := make([]byte, len(numbers))
		for i, n := range numbers {
			out[i] = byte(n)
		}
		return out
	}
	var several []json.RawMessage
	if json.Unmarshal(raw, &several) == nil && len(several) > 0 {
		return fieldText(several[0])
	}
	return nil
}
