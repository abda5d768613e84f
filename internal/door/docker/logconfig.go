package docker

import (
	"maps"
	"slices"
	"strconv"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"

	"fief/internal/words/ask"
)

// logAsked reads the log driver and its options. max-size is in decimal units,
// as Docker has it: 10m is ten million bytes.
func logAsked(c container.LogConfig) (ask.Log, error) {
	l := ask.Log{Driver: c.Type}
	switch c.Type {
	case "":
		l.Driver = "json-file"
	case "json-file", "none":
	default:
		return l, invalid("logger: no log driver named '%s' is registered", c.Type)
	}
	for _, key := range slices.Sorted(maps.Keys(c.Config)) {
		if err := logOption(&l, key, c.Config[key]); err != nil {
			return l, err
		}
	}
	if l.MaxFile > 1 && l.MaxSize == 0 {
		return l, invalid("max-file cannot be used without max-size")
	}
	return l, nil
}

func logOption(l *ask.Log, key, value string) error {
	if l.Driver == "none" {
		return invalid("unknown log opt '%s' for none log driver", key)
	}
	switch key {
	case "max-size":
		n, err := units.FromHumanSize(value)
		if value == "-1" {
			return nil // Docker's way to say "never"
		}
		if err != nil || n < 1 {
			return invalid("invalid value for max-size: %q", value)
		}
		l.MaxSize = n
	case "max-file":
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 {
			return invalid("max-file cannot be less than 1")
		}
		l.MaxFile = n
	case "mode":
		if value != "blocking" {
			return refuse("log option mode="+value, "leave it out: a full log never loses lines")
		}
	case "compress", "env", "env-regex", "labels", "labels-regex", "tag", "max-buffer-size":
		return refuse("log option "+key, "leave it out")
	default:
		return invalid("unknown log opt '%s' for json-file log driver", key)
	}
	return nil
}
