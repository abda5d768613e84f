package cli

import (
	"strconv"
	"strings"

	"fief/internal/words/idmap"
)

// accountID is the id of a name in the text of a passwd(5) or group(5) file,
// whose third fields they both are. The first line of a name counts, as it does
// for the C library.
func accountID(text, name string) (uint32, bool) {
	for line := range strings.Lines(text) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) > 2 && fields[0] == name && name != "" {
			return parseID(fields[2])
		}
	}
	return 0, false
}

// parseID reads an id: 4294967295 is none.
func parseID(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n <= idmap.Max
}
