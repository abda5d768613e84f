package ask

import (
	"maps"
	"regexp"
	"slices"
	"strconv"

	"github.com/docker/go-units"

	"fief/internal/words/fault"
)

// Log says where output goes, as a client says it: Driver empty is the daemon's
// default. Parse tells what it means.
type Log struct {
	Driver  string
	Options map[string]string
}

// LogSettings is what a Log means. Labels, Env and the tag are looked up when
// the container starts.
type LogSettings struct {
	MaxSize  int64 // bytes at which a file is rotated; 0: never
	MaxFile  int   // files kept including the current one
	Compress bool  // old files
	Buffer   int64 // bytes kept for a log that does not keep up; 0: the program waits for it
}

// LogDrivers are the drivers there are, in order.
var LogDrivers = []string{"journald", "json-file", "local", "none"}

// What Docker's drivers do when nothing is said: daemon/logger/local/config.go
// and daemon/logger/ring.go of moby.
const (
	localMaxSize  = 20_000_000
	localMaxFile  = 5
	defaultBuffer = 1_000_000
)

// Over lays a client's wish over the daemon's default: its options count for a
// container that has the same driver.
func (l Log) Over(base Log) Log {
	if base.Driver == "" {
		base.Driver = "json-file"
	}
	out := Log{Driver: l.Driver, Options: maps.Clone(l.Options)}
	if out.Driver == "" {
		out.Driver = base.Driver
	}
	if out.Options == nil {
		out.Options = map[string]string{}
	}
	if out.Driver != base.Driver {
		return out
	}
	for k, v := range base.Options {
		if _, said := out.Options[k]; !said {
			out.Options[k] = v
		}
	}
	return out
}

// logOptions are the options of each driver beside mode and max-buffer-size,
// and how its errors name it.
var logOptions = map[string]struct {
	keys []string
	name string
}{
	"json-file": {[]string{"max-file", "max-size", "compress", "labels", "labels-regex", "env", "env-regex", "tag"}, "json-file log driver"},
	"local":     {[]string{"max-file", "max-size", "compress"}, "log driver local"},
	"journald":  {[]string{"labels", "labels-regex", "env", "env-regex", "tag"}, "journald log driver"},
}

// Parse reads the options. Errors are Invalid, in Docker's words. Preconditions:
// Driver is not empty.
func (l Log) Parse() (s LogSettings, err error) {
	if l.Driver == "none" {
		return s, nil // whatever the options say, as Docker has it
	}
	if s.Buffer, err = l.mode(); err != nil {
		return s, err
	}
	driver, ok := logOptions[l.Driver]
	if !ok {
		return s, logFault("logger: no log driver named '" + l.Driver + "' is registered")
	}
	for _, key := range slices.Sorted(maps.Keys(l.Options)) {
		if key != "mode" && key != "max-buffer-size" && !slices.Contains(driver.keys, key) {
			return s, logFault("unknown log opt '" + key + "' for " + driver.name)
		}
	}
	for _, key := range []string{"labels-regex", "env-regex"} {
		if _, err := regexp.Compile(l.Options[key]); err != nil {
			return s, logFault(err.Error())
		}
	}
	return s, l.files(&s)
}

func logFault(text string) error { return fault.Say(fault.Invalid, text) }

// mode reads whether the program waits for its log.
func (l Log) mode() (buffer int64, err error) {
	size, given := l.Options["max-buffer-size"]
	switch mode := l.Options["mode"]; mode {
	case "", "blocking":
		if given {
			return 0, logFault("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
		}
		return 0, nil
	case "non-blocking":
	default:
		return 0, logFault("logger: logging mode not supported: " + mode)
	}
	if !given {
		return defaultBuffer, nil
	}
	buffer, err = units.RAMInBytes(size)
	if err != nil {
		return 0, logFault("error parsing option max-buffer-size: " + err.Error())
	}
	return max(buffer, 1), nil
}

// files reads how files are rotated. max-size is in decimal units, as Docker has
// it: 10m is ten million bytes.
func (l Log) files(s *LogSettings) (err error) {
	s.MaxFile = 1
	if l.Driver == "local" {
		s.MaxSize, s.MaxFile, s.Compress = localMaxSize, localMaxFile, true
	}
	if size, ok := l.Options["max-size"]; ok && size != "-1" { // Docker's way to say "never"
		s.MaxSize, err = units.FromHumanSize(size)
		if err != nil {
			return logFault(err.Error())
		}
		if s.MaxSize <= 0 {
			return logFault("max-size must be a positive number")
		}
	}
	if n, ok := l.Options["max-file"]; ok {
		if s.MaxFile, err = strconv.Atoi(n); err != nil {
			return logFault("invalid value for max-file: \"" + n + "\"")
		}
		if s.MaxFile < 1 {
			return logFault("max-file cannot be less than 1")
		}
	}
	if s.MaxFile > 1 && s.MaxSize == 0 {
		return logFault("max-file cannot be used without max-size")
	}
	if c, ok := l.Options["compress"]; ok {
		if s.Compress, err = strconv.ParseBool(c); err != nil {
			return logFault("invalid value for compress: \"" + c + "\"")
		}
		if s.Compress && (s.MaxFile == 1 || s.MaxSize == 0) {
			return logFault("compress cannot be true when max-file is less than 2 or max-size is not set")
		}
	}
	s.Compress = s.Compress && s.MaxFile > 1
	return nil
}
