package serve

import (
	"fief/internal/monitor/filelog"
	"fief/internal/monitor/journal"
	"fief/internal/monitor/lines"
	"fief/internal/monitor/wire"
	"fief/internal/words/fault"
)

// openLog opens the log of a container; nil without an error: it has none.
func (v *server) openLog(id string, l wire.Log) (lines.Sink, error) {
	sink, err := v.openDriver(id, l)
	if err != nil || sink == nil || l.Buffer <= 0 {
		return sink, err
	}
	return lines.NewRing(sink, l.Buffer), nil
}

func (v *server) openDriver(id string, l wire.Log) (lines.Sink, error) {
	cfg := filelog.Config{Path: l.Path, MaxSize: l.MaxSize, MaxFile: int(l.MaxFile), Attrs: l.Attrs}
	if l.Compress {
		cfg.Compress = v.compress
	}
	switch l.Driver {
	case "none":
		return nil, nil
	case "json-file", "":
	case "local", "cri":
		cfg.Format = filelog.CRI
	case "journald":
		return journalLog(l.Fields, id)
	default:
		return nil, fault.New(fault.Unsupported, "use log driver", l.Driver, "unknown", "use json-file, local, journald or none")
	}
	log, err := filelog.Open(cfg)
	if err != nil {
		return nil, err // not the nil *Log, which would not be a nil Sink
	}
	return log, nil
}

func journalLog(fields []string, id string) (lines.Sink, error) {
	log, err := journal.Open(fields, id)
	if err != nil {
		return nil, err
	}
	return log, nil
}
