package engine

import (
	"reflect"
	"testing"
	"time"

	"fief/internal/words/ask"
	"fief/internal/words/record"
)

func TestMergeHealth(t *testing.T) {
	image := &record.Health{Test: []string{"CMD", "true"}, Interval: time.Second, Retries: 5}
	for _, c := range []struct {
		asked *ask.Health
		image *record.Health
		want  *record.Health
	}{
		{nil, nil, nil},
		{nil, image, image},
		{&ask.Health{Retries: 2}, image, &record.Health{Test: []string{"CMD", "true"}, Interval: time.Second, Retries: 2}},
		{&ask.Health{Test: []string{"CMD-SHELL", "x"}}, image, &record.Health{Test: []string{"CMD-SHELL", "x"}, Interval: time.Second, Retries: 5}},
		{&ask.Health{Interval: time.Minute}, nil, &record.Health{Interval: time.Minute}},
	} {
		if got := mergeHealth(c.asked, c.image); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%+v over %+v is %+v", c.asked, c.image, got)
		}
	}
	if (&record.Health{Test: []string{"NONE"}}).Probes() || (&record.Health{Interval: 1}).Probes() || !image.Probes() {
		t.Error("who is probed")
	}
	shell := record.Container{Health: &record.Health{Test: []string{"CMD-SHELL", "a b"}}, Shell: []string{"/bin/bash", "-ec"}}
	if got := probeCommand(shell); !reflect.DeepEqual(got, []string{"/bin/bash", "-ec", "a b"}) {
		t.Errorf("%q", got)
	}
}
