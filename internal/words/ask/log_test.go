package ask

import "testing"

func TestLogParse(t *testing.T) {
	for _, c := range []struct {
		driver, key, value string
		want               LogSettings
		err                string
	}{
		{"json-file", "", "", LogSettings{MaxFile: 1}, ""},
		{"json-file", "max-size", "10m", LogSettings{MaxSize: 10_000_000, MaxFile: 1}, ""},
		{"json-file", "max-size", "-1", LogSettings{MaxFile: 1}, ""},
		{"json-file", "mode", "non-blocking", LogSettings{MaxFile: 1, Buffer: 1_000_000}, ""},
		{"local", "", "", LogSettings{MaxSize: 20_000_000, MaxFile: 5, Compress: true}, ""},
		{"local", "compress", "false", LogSettings{MaxSize: 20_000_000, MaxFile: 5}, ""},
		{"local", "max-file", "1", LogSettings{MaxSize: 20_000_000, MaxFile: 1}, ""},
		{"none", "max-size", "x", LogSettings{}, ""},
		{"journald", "tag", "{{.Name}}", LogSettings{MaxFile: 1}, ""},
		{"syslog", "", "", LogSettings{}, "logger: no log driver named 'syslog' is registered"},
		{"json-file", "odd", "", LogSettings{}, "unknown log opt 'odd' for json-file log driver"},
		{"local", "tag", "", LogSettings{}, "unknown log opt 'tag' for log driver local"},
		{"journald", "max-size", "1m", LogSettings{}, "unknown log opt 'max-size' for journald log driver"},
		{"json-file", "mode", "odd", LogSettings{}, "logger: logging mode not supported: odd"},
		{"json-file", "max-buffer-size", "1m", LogSettings{}, "logger: max-buffer-size option is only supported with 'mode=non-blocking'"},
		{"json-file", "max-size", "0", LogSettings{}, "max-size must be a positive number"},
		{"json-file", "max-file", "0", LogSettings{}, "max-file cannot be less than 1"},
		{"json-file", "max-file", "2", LogSettings{}, "max-file cannot be used without max-size"},
		{"json-file", "compress", "true", LogSettings{}, "compress cannot be true when max-file is less than 2 or max-size is not set"},
		{"json-file", "env-regex", "(", LogSettings{}, "error parsing regexp: missing closing ): `(`"},
	} {
		l := Log{Driver: c.driver, Options: map[string]string{}}
		if c.key != "" {
			l.Options[c.key] = c.value
		}
		got, err := l.Parse()
		if c.err == "" && (err != nil || got != c.want) || c.err != "" && (err == nil || err.Error() != c.err) {
			t.Errorf("%s %s=%s: %+v, %v", c.driver, c.key, c.value, got, err)
		}
	}
}

func TestLogOver(t *testing.T) {
	base := Log{Driver: "local", Options: map[string]string{"max-size": "1m", "max-file": "2"}}
	if l := (Log{Options: map[string]string{"max-file": "3"}}).Over(base); l.Driver != "local" || l.Options["max-size"] != "1m" || l.Options["max-file"] != "3" {
		t.Errorf("%+v", l)
	}
	if l := (Log{Driver: "json-file"}).Over(base); l.Driver != "json-file" || len(l.Options) != 0 {
		t.Errorf("another driver inherits %+v", l)
	}
	if l := (Log{}).Over(Log{}); l.Driver != "json-file" {
		t.Errorf("%+v", l)
	}
}
