package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"fief/internal/words/fault"
)

// report says err on standard error and appends it to the log file: containerd
// (go-runc) and conmon take the last line of level "error" there for the reason
// of a failure.
func (a *app) report(level string, err error) {
	line := a.line(level, err)
	if a.logFile == "" && a.logFormat == "json" {
		os.Stderr.Write(line)
		return
	}
	fmt.Fprintln(os.Stderr, "fief-oci:", err)
	if hint := fault.HintOf(err); hint != "" {
		fmt.Fprintln(os.Stderr, "hint:", hint)
	}
	if a.logFile == "" {
		return
	}
	f, openErr := os.OpenFile(a.logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if openErr != nil {
		fmt.Fprintln(os.Stderr, "fief-oci:", openErr)
		return
	}
	defer f.Close()
	f.Write(line)
}

// line is a message in one of logrus' two formats, which runc's callers parse.
func (a *app) line(level string, err error) []byte {
	now := time.Now().Format(time.RFC3339)
	if a.logFormat != "json" {
		return fmt.Appendf(nil, "time=%q level=%s msg=%q\n", now, level, err.Error())
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(map[string]string{"level": level, "msg": err.Error(), "time": now}) != nil {
		return nil
	}
	return b.Bytes()
}
