package systemd

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// reply writes a message of systemd's: an answer, an error or a signal.
func reply(k kind, serial uint32, name, types string, body []byte) []byte {
	var w writer
	w.b = append(w.b, 'l', byte(k), 0, 1)
	w.u32(uint32(len(body)))
	w.u32(1)
	w.array(8, func() {
		field := func(code byte, sig string) {
			w.align(8)
			w.b = append(w.b, code)
			w.signature(sig)
		}
		if serial != 0 {
			field(fieldReply, "u")
			w.u32(serial)
		}
		if name != "" {
			field(map[kind]byte{failed: fieldError, signal: fieldMember}[k], "s")
			w.text(name)
		}
		if types != "" {
			field(fieldSignature, "g")
			w.signature(types)
		}
	})
	w.align(8)
	return append(w.b, body...)
}

const job7 = "/org/freedesktop/systemd1/job/7"

// removed is the signal that job 7 has ended.
func removed() []byte {
	var w writer
	w.u32(7)
	w.text(job7)
	w.text("a.scope")
	w.text("done")
	return reply(signal, 0, "JobRemoved", "uoss", w.b)
}

// TestJobThatEndsUntold: a stop whose end systemd does not tell of is over when
// there is no such job, one that goes on is waited for, and a start that ends
// untold is no success.
func TestJobThatEndsUntold(t *testing.T) {
	var path writer
	path.text(job7)
	for name, c := range map[string]struct {
		answers [][]byte // to the calls after the one that makes the job, in turn
		member  string
		good    bool
	}{
		"stop, gone":       {[][]byte{reply(failed, 2, noSuchJob, "", nil)}, "StopUnit", true},
		"start, gone":      {[][]byte{reply(failed, 2, noSuchJob, "", nil)}, "StartTransientUnit", false},
		"start, told late": {[][]byte{append(removed(), reply(failed, 2, noSuchJob, "", nil)...)}, "StartTransientUnit", true},
		"stop, goes on":    {[][]byte{reply(answer, 2, "", "o", path.b), reply(failed, 3, noSuchJob, "", nil)}, "StopUnit", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			b, manager := &Bus{fd: pair[0]}, &Bus{fd: pair[1]}
			asked := make(chan string, 8)
			go func() {
				defer manager.Close()
				defer close(asked)
				for _, text := range append([][]byte{reply(answer, 1, "", "o", path.b)}, c.answers...) {
					m, err := manager.receive()
					if err != nil {
						return
					}
					asked <- m.member
					manager.send(text)
				}
				manager.receive() // till the other side ends
			}()
			begun := time.Now()
			err = b.job(c.member, "", nil)
			if (err == nil) != c.good {
				t.Errorf("after %v: %v", time.Since(begun), err)
			}
			b.Close()
			n := -1
			for range asked {
				n++
			}
			if n != len(c.answers) {
				t.Errorf("it was asked %d times for the job, not %d", n, len(c.answers))
			}
		})
	}
}
