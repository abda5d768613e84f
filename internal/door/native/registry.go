package native

import (
	"fief/internal/door/native/wire"
	"fief/internal/words/ask"
)

// registry answers the verbs that send something to a registry.
func (k *call) registry(v wire.Verb) (any, error) {
	if v == wire.Login {
		a, err := decode[ask.RegistryAuth](k)
		if err != nil {
			return nil, err
		}
		return k.engine.Login(k.ctx, a)
	}
	p, err := decode[ask.PushImage](k)
	if err != nil {
		return nil, err
	}
	return k.engine.Push(k.ctx, p, k.progress)
}
