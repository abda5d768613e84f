package launch

import (
	"bytes"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/launch/launchtest"
)

// TestRelease: a plan made in another one's memory is the plan that is made in
// new memory, whatever was there before, and several may be made at once.
func TestRelease(t *testing.T) {
	changes := []func(*specs.Spec){func(*specs.Spec) {}, withMounts, user, noUserns,
		func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, "SECRET=abc") }}
	want := make([][]byte, len(changes))
	listing := make([]string, len(changes))
	for i, change := range changes {
		s := launchtest.Spec("true")
		change(s)
		p, err := compiler().Container(s, Options{ID: "id"})
		if err != nil {
			t.Fatal(err)
		}
		if want[i], err = p.Encode(); err != nil {
			t.Fatal(err)
		}
		listing[i] = p.Listing()
	}
	c := compiler()
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() {
			for n := range 40 {
				i := (n*7 + g) % len(changes)
				s := launchtest.Spec("true")
				changes[i](s)
				p, err := c.Container(s, Options{ID: "id"})
				if err != nil {
					t.Error(err)
					return
				}
				got, err := p.Encode()
				if err != nil || !bytes.Equal(got, want[i]) || p.Listing() != listing[i] {
					t.Errorf("plan %d differs in used memory (%v)", i, err)
				}
				c.Release(&p)
				if p.Memory != nil || p.Steps != nil {
					t.Error("a released plan is not empty")
				}
			}
		})
	}
	wg.Wait()
	if len(c.spare) == 0 || len(c.spare) > maxSpare {
		t.Errorf("%d spare memories", len(c.spare))
	}
}
