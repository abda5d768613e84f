package foreign

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestLastMessage(t *testing.T) {
	for log, want := range map[string]string{
		`{"level":"info","msg":"first"}` + "\n" + `{"msg":"exec: \"x\": not found","level":"error","time":"t"}` + "\n": `exec: "x": not found`,
		`{ "msg": "a\/b\u00e9\n" }`:  "a/bé\n",
		`{"msg":"cut off`:            "",
		`{"msg":12}`:                 "",
		`{"msg":`:                    "",
		`{"msg":"bad \q escape"}`:    `"bad \q escape"`,
		"panic: not JSON at all\n":   "",
		"{\"msg\":\"ends with \\":    "",
		"{\"msg\":\"two\nlines\"}":   "",
		`{"level":"error","msg":""}`: "",
	} {
		if got := lastMessage(log); got != want {
			t.Errorf("%q: %q, not %q", log, got, want)
		}
	}
}

// FuzzLastMessage: whatever a runtime logs, what is told of it is text of bounded
// length.
func FuzzLastMessage(f *testing.F) {
	f.Add(`{"msg":"exec: \"x\"","level":"error"}`)
	f.Add(`"msg":"\`)
	f.Fuzz(func(t *testing.T, log string) {
		text := lastMessage(log)
		if len(text) > 2*maxSaid || !utf8.ValidString(text) && utf8.ValidString(log) {
			t.Errorf("%q", text)
		}
		if text != "" && !strings.Contains(log, `"msg":`) {
			t.Errorf("%q comes from nowhere", text)
		}
	})
}
