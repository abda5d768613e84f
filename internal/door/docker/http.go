package docker

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/common"
)

// maxBody bounds a JSON body. The largest honest ones carry a seccomp profile
// of some 20 KiB.
const maxBody = 8 << 20

// answer remembers whether something was sent, so that an error becomes either
// the answer or nothing.
type answer struct {
	http.ResponseWriter
	begun bool
}

// WriteHeader implements http.ResponseWriter. Only the first call counts.
func (w *answer) WriteHeader(code int) {
	if w.begun {
		return
	}
	w.begun = true
	w.ResponseWriter.WriteHeader(code)
}

// Write implements io.Writer.
func (w *answer) Write(p []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController find Flush and Hijack.
func (w *answer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// fail answers with the error, unless an answer has begun.
func (w *answer) fail(err error) {
	if w.begun {
		return
	}
	code := statusOf(err)
	if code == http.StatusNotModified {
		w.WriteHeader(code)
		return
	}
	writeJSON(w, code, common.ErrorResponse{Message: message(err)})
}

// writeJSON answers with v. The content type is exactly this text: clients
// compare it.
func writeJSON(w http.ResponseWriter, code int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.Encode(v) // fails only when the client is gone
	return nil
}

func ok(w http.ResponseWriter, v any) error { return writeJSON(w, http.StatusOK, v) }

func noContent(w http.ResponseWriter) error {
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// flush sends what was written so far, headers at least.
func flush(w http.ResponseWriter) { http.NewResponseController(w).Flush() }

// body decodes the JSON body into v. No body at all is an error only when it
// is required.
func (r *request) body(v any, required bool) error {
	if r.ContentLength == 0 && !required {
		return nil
	}
	if kind := r.Header.Get("Content-Type"); kind != "" || r.ContentLength != 0 {
		if media, _, err := mime.ParseMediaType(kind); err != nil || media != "application/json" {
			return invalid("unsupported Content-Type header (%s): must be 'application/json'", kind)
		}
	}
	dec := json.NewDecoder(io.LimitReader(r.Body, maxBody))
	switch err := dec.Decode(v); {
	case errors.Is(err, io.EOF) && !required:
		return nil
	case errors.Is(err, io.EOF):
		return invalid("invalid JSON: got EOF while reading request body")
	case err != nil:
		return invalid("invalid JSON: %v", err)
	}
	if dec.More() {
		return invalid("invalid JSON: unexpected content after JSON")
	}
	return nil
}

// truth reads a query flag as Docker does: absent, 0, no, false and none are
// false, anything else is true.
func (r *request) truth(key string) bool { return isTrue(r.Form.Get(key)) }

func isTrue(s string) bool {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// number reads a query parameter as an integer; nil when it is absent.
func (r *request) number(key string) (*int, error) {
	s := r.Form.Get(key)
	if s == "" {
		return nil, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return nil, invalid("invalid value for %q: %q is not a number", key, s)
	}
	return &n, nil
}

// size reads rows and columns of a terminal.
func (r *request) size() (rows, cols uint16, err error) {
	h, err1 := strconv.ParseUint(r.Form.Get("h"), 10, 16)
	w, err2 := strconv.ParseUint(r.Form.Get("w"), 10, 16)
	if err1 != nil || err2 != nil {
		return 0, 0, invalid("invalid resize: h and w must be numbers from 0 to 65535, not %q and %q", r.Form.Get("h"), r.Form.Get("w"))
	}
	return uint16(h), uint16(w), nil
}
