package native

import (
	"fief/internal/door/native/wire"
	"fief/internal/words/ask"
)

// identities answers the verbs about host ids.
func (k *call) identities(v wire.Verb) (any, error) {
	switch v {
	case wire.Update:
		return k.update()
	case wire.IDs:
		return k.ids()
	}
	w, err := decode[ask.Who](k)
	if err != nil {
		return nil, err
	}
	return k.engine.Who(k.ctx, w)
}

// ids sends the ranges in pieces, which the client reads while the next one is
// made.
func (k *call) ids() (any, error) {
	all, err := k.engine.IDs(k.ctx)
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
	return k.engine.Update(k.lasting(), u.ID, userns, callerOf(k.peer, u.Caller))
}
