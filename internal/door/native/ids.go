package native

import (
	"fief/internal/door/native/wire"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
)

// identities answers the verbs about host ids.
func (k *call) identities(v wire.Verb) (any, error) {
	if v == wire.Update {
		return k.update()
	}
	e, ok := k.engine.(identifier)
	if !ok {
		return nil, fault.New(fault.Unsupported, "tell whose ids are", "", "this daemon does not keep account of them", "install fief and fiefd from one build")
	}
	if v == wire.IDs {
		return k.ids(e)
	}
	w, err := decode[ask.Who](k)
	if err != nil {
		return nil, err
	}
	return e.Who(k.ctx, w)
}

// ids sends the ranges in pieces, which the client reads while the next one is
// made.
func (k *call) ids(e identifier) (any, error) {
	all, err := e.IDs(k.ctx)
	if err != nil {
		return nil, err
	}
	var piece []byte
	for i, r := range all.Ranges {
		piece = wire.AppendRange(piece, r)
		if len(piece) < wire.ChunkSize/2 && i < len(all.Ranges)-1 {
			continue
		}
		if err := k.send(wire.Data, piece); err != nil {
			return nil, err
		}
		piece = piece[:0]
	}
	all.Ranges = nil
	return all, nil
}

// update is not interrupted by a client that goes: a container is left with
// the old ids or the new ones, never without a record of them.
func (k *call) update() (any, error) {
	u, err := decode[wire.UpdateCall](k)
	if err != nil {
		return nil, err
	}
	userns, err := u.Unpack()
	if err != nil {
		return nil, err
	}
	e, ok := k.engine.(updater)
	if !ok {
		return nil, fault.New(fault.Unsupported, "give other ids to", u.ID, "this daemon does not do that", "install fief and fiefd from one build")
	}
	return e.Update(k.lasting(), u.ID, userns)
}
