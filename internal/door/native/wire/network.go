package wire

import (
	"fief/internal/words/record"
)

// The verbs about networks.
const (
	Networks          Verb = 128 + iota // → []record.Network
	Network                             // (Name) → record.Network
	CreateNetwork                       // (ask.CreateNetwork) → NetworkReply
	RemoveNetwork                       // (Name)
	PruneNetworks                       // (PruneNetworksCall) → record.Pruned
	ConnectNetwork                      // (ask.ConnectNetwork)
	DisconnectNetwork                   // (ask.DisconnectNetwork)
)

// NetworkReply is the answer to CreateNetwork.
type NetworkReply struct {
	Network  record.Network
	Warnings []string
}

// PruneNetworksCall names the networks that a prune is to leave alone.
type PruneNetworksCall struct{ Keep []string }
