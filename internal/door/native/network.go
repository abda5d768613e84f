package native

import (
	"context"
	"slices"

	"fief/internal/door/native/wire"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// networker is an engine that has networks of containers besides none and the
// host's.
type networker interface {
	Networks(context.Context) ([]record.Network, error)
	Network(ctx context.Context, name string) (record.Network, error)
	CreateNetwork(context.Context, ask.CreateNetwork) (record.Network, []string, error)
	RemoveNetwork(ctx context.Context, name string) error
	PruneNetworks(ctx context.Context, keep func(record.Network) bool) (record.Pruned, error)
	Connect(context.Context, ask.ConnectNetwork) error
	Disconnect(context.Context, ask.DisconnectNetwork) error
}

// networks answers the verbs about networks. A client that goes does not
// interrupt what changes one.
func (k *call) networks(v wire.Verb) (any, error) {
	n, ok := k.engine.(networker)
	if !ok {
		return nil, fault.New(fault.Unsupported, "use networks", "", "this daemon has none", "use --network none")
	}
	switch v {
	case wire.Networks:
		return n.Networks(k.ctx)
	case wire.CreateNetwork:
		a, err := decode[ask.CreateNetwork](k)
		if err != nil {
			return nil, err
		}
		made, warnings, err := n.CreateNetwork(k.lasting(), a)
		return wire.NetworkReply{Network: made, Warnings: warnings}, err
	case wire.ConnectNetwork:
		a, err := decode[ask.ConnectNetwork](k)
		if err != nil {
			return nil, err
		}
		return nil, n.Connect(k.lasting(), a)
	case wire.DisconnectNetwork:
		a, err := decode[ask.DisconnectNetwork](k)
		if err != nil {
			return nil, err
		}
		return nil, n.Disconnect(k.lasting(), a)
	case wire.PruneNetworks:
		a, err := decode[wire.PruneNetworksCall](k)
		if err != nil {
			return nil, err
		}
		return n.PruneNetworks(k.lasting(), func(n record.Network) bool { return slices.Contains(a.Keep, n.ID) })
	}
	name, err := decode[wire.Name](k)
	if err != nil {
		return nil, err
	}
	if v == wire.RemoveNetwork {
		return nil, n.RemoveNetwork(k.lasting(), name.Name)
	}
	return n.Network(k.ctx, name.Name)
}
