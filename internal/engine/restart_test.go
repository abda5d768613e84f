package engine

import (
	"testing"
	"time"

	"fief/internal/words/record"
)

func TestPauses(t *testing.T) {
	var r restarting
	want := []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000}
	for i, ms := range want {
		if got := r.next(time.Second); got != ms*time.Millisecond {
			t.Errorf("pause %d is %v", i, got)
		}
	}
	if got := r.next(11 * time.Second); got != firstPause {
		t.Errorf("after a long run the pause is %v", got)
	}
}

func TestComesBack(t *testing.T) {
	for _, c := range []struct {
		policy  string
		max     int
		code    int
		count   int
		stopped bool
		want    bool
	}{
		{"no", 0, 1, 0, false, false}, {"", 0, 1, 0, false, false},
		{"always", 0, 0, 99, false, true}, {"always", 0, 0, 0, true, false},
		{"unless-stopped", 0, 0, 0, false, true}, {"unless-stopped", 0, 1, 0, true, false},
		{"on-failure", 0, 0, 0, false, false}, {"on-failure", 0, 1, 99, false, true},
		{"on-failure", 2, 1, 1, false, true}, {"on-failure", 2, 1, 2, false, false}, {"on-failure", 0, 137, 0, true, false},
	} {
		rec := record.Container{Restart: c.policy, RestartMax: c.max,
			State: record.State{ExitCode: c.code, Restarts: c.count, Stopped: c.stopped}}
		if got := comesBack(rec); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
