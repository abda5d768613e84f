package netin_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/netin"
	"fief/internal/words/fault"
)

// TestOffer: a namespace is offered, the offer waits for its answer, and ends in
// words when nobody will give one.
func TestOffer(t *testing.T) {
	ns := space(t)
	for _, c := range []struct {
		answer func(box *os.File) error
		want   string
		class  fault.Class
	}{
		{func(box *os.File) error { return netin.Answer(box, nil) }, "", 0},
		{func(box *os.File) error { return netin.Answer(box, fault.Say(fault.Denied, "no way")) }, "no way", fault.Denied},
		{func(box *os.File) error { return netin.Answer(box, errors.New(strings.Repeat("x", 1<<16))) }, "xxx", fault.Internal},
		{func(box *os.File) error { return box.Close() }, "the daemon has ended", fault.Unavailable},
	} {
		ours, theirs, err := netin.Box()
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- netin.Offer(ns, 42, int(theirs.Fd())) }()
		got, pid, err := netin.Await(ours)
		if err != nil || pid != 42 {
			t.Fatal(pid, err)
		}
		var a, b unix.Stat_t
		if unix.Fstat(int(got.Fd()), &a) != nil || unix.Fstat(int(ns.Fd()), &b) != nil || a.Ino != b.Ino {
			t.Error("another namespace has arrived")
		}
		got.Close()
		select {
		case err := <-done:
			t.Fatal("it did not wait:", err)
		default:
		}
		if err := c.answer(ours); err != nil {
			t.Fatal(err)
		}
		err = <-done
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || fault.ClassOf(err) != c.class) {
			t.Errorf("%q: %v", c.want, err)
		}
		theirs.Close()
		ours.Close()
	}
	ours, theirs, err := netin.Box()
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	if _, _, err := netin.Await(ours); !fault.Is(err, fault.NotFound) {
		t.Error("nobody offers:", err)
	}
	ours.Close()
}
