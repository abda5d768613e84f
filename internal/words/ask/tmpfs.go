package ask

import (
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"fief/internal/words/fault"
)

// TmpfsWord applies one option of a tmpfs, KEY or KEY=VALUE: the words of mount(8) and
// tmpfs(5) that Docker and Podman take. size is in bytes or with a unit, or a share of
// the host's memory with %; mode is octal.
//
// suid and dev are Unsupported: nosuid and nodev always hold. So is tmpcopyup, as
// nothing of the image is copied into a tmpfs.
func (m *Mount) TmpfsWord(word string) error {
	key, value, given := strings.Cut(word, "=")
	if given {
		if !m.tmpfsValue(key, value) {
			return fault.Say(fault.Invalid, "invalid tmpfs option "+strconv.Quote(word))
		}
		return nil
	}
	switch word {
	case "rw", "nosuid", "nodev", "notmpcopyup", "defaults":
	case "ro":
		m.ReadOnly = true
	case "exec", "noexec":
		m.TmpfsExec = word == "exec"
	case "noatime", "atime", "relatime", "norelatime", "strictatime", "nostrictatime", "nodiratime", "diratime":
		m.TmpfsOptions = append(m.TmpfsOptions, word)
	case "suid", "dev":
		return fault.Say(fault.Unsupported, "tmpfs option "+word+" is not supported: nosuid and nodev always hold")
	case "tmpcopyup":
		return fault.Say(fault.Unsupported, "tmpfs option "+word+" is not supported: use a volume, which is filled with what the image has there")
	default:
		return fault.Say(fault.Invalid, "invalid tmpfs option "+strconv.Quote(word))
	}
	return nil
}

// tmpfsValue applies an option with a value; false: there is no such, or it cannot
// have this value.
func (m *Mount) tmpfsValue(key, value string) bool {
	switch key {
	case "size":
		if share, ok := strings.CutSuffix(value, "%"); ok {
			if _, err := strconv.ParseUint(share, 10, 16); err != nil {
				return false
			}
			break
		}
		n, err := units.RAMInBytes(value)
		m.TmpfsSize = n
		return err == nil && n >= 0
	case "mode":
		n, err := strconv.ParseUint(value, 8, 12)
		m.TmpfsMode = uint32(n)
		return err == nil
	case "uid", "gid", "nr_inodes", "nr_blocks":
		n := strings.TrimRight(value, "kKmMgG")
		if _, err := strconv.ParseUint(n, 10, 32); err != nil || (key == "uid" || key == "gid") && n != value {
			return false
		}
	case "huge":
		if value != "never" && value != "always" && value != "within_size" && value != "advise" {
			return false
		}
	case "mpol":
		if value == "" {
			return false
		}
	default:
		return false
	}
	m.TmpfsOptions = append(m.TmpfsOptions, key+"="+value)
	return true
}
