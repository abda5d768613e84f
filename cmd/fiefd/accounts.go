package main

import (
	"context"
	"time"

	"fief/internal/idpool/hostids"
	"fief/internal/words/idmap"
)

// nameWait bounds how long a name service may take to name an id.
const nameWait = 2 * time.Second

// accounts are the users and groups of the host.
type accounts struct{ files hostids.Files }

// Named makes a pair of the subordinate ids of two names.
func (a accounts) Named(subuid, subgid string) (idmap.Pair, error) {
	return hostids.Named(subuid, subgid, a.files)
}

// UserName is empty for an id that is nobody's.
func (a accounts) UserName(id idmap.Host) string { return named(id, a.files.UserName) }

// GroupName is empty for an id that is nobody's.
func (a accounts) GroupName(id idmap.Host) string { return named(id, a.files.GroupName) }

func named(id idmap.Host, look func(context.Context, idmap.Host) (string, bool)) string {
	ctx, cancel := context.WithTimeout(context.Background(), nameWait)
	defer cancel()
	name, _ := look(ctx, id)
	return name
}
