package fast

import (
	"path/filepath"
	"strings"

	"fief/internal/words/fault"
)

// DefaultSocket is the native socket of a daemon with default roots.
const DefaultSocket = "/run/fief/native.sock"

// Socket returns the native socket beside the docker socket that host names;
// empty means the default. The error is of class Invalid.
func Socket(host string) (string, error) {
	if host == "" {
		return DefaultSocket, nil
	}
	path, ok := strings.CutPrefix(host, "unix://")
	if !ok || path == "" || path[0] != '/' {
		f := fault.Say(fault.Invalid, "unable to parse docker host `"+host+"`")
		f.Hint = "name the daemon's docker socket: unix:///path/docker.sock"
		return "", f
	}
	return filepath.Join(filepath.Dir(path), "native.sock"), nil
}
