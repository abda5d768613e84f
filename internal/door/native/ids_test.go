package native_test

import (
	"testing"

	"fief/internal/door/native/wire"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// Ranges come as data before the result: a host with very many of them must
// not make a message that is too large.
func TestIDsComeInPieces(t *testing.T) {
	path, _ := serve(t)
	c := dial(t, path)
	var ranges []record.IDRange
	var result record.IDs
	err := c.Call(wire.IDs, struct{}{}, &result, func(m wire.Message) (err error) {
		ranges, err = wire.Ranges(ranges, m.Body)
		return err
	})
	if err != nil || len(ranges) < 8 || len(result.Ranges) != 0 || result.Pool.Free == 0 {
		t.Errorf("%d ranges, %+v, %v", len(ranges), result, err)
	}
	var w record.Who
	alice := uint32(1000)
	if err := c.Call(wire.Who, ask.Who{Asked: "1000", UID: &alice}, &w, nil); err != nil || w.UID == nil || w.UID.HostName != "alice" {
		t.Errorf("%+v, %v", w, err)
	}
	if err := c.Call(wire.Update, wire.PackUpdate("nobody", ask.UsernsHost{}, nil), nil, nil); !fault.Is(err, fault.NotFound) {
		t.Errorf("%v", err)
	}
	if err := c.Call(wire.Update, wire.UpdateCall{ID: "x", Userns: wire.Userns{Kind: "odd"}}, nil, nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("%v", err)
	}
}
