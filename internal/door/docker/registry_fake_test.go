package docker

import (
	"context"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

func (f *fake) Push(ctx context.Context, p ask.PushImage, tell func(record.Progress)) ([]record.Pushed, error) {
	f.mu.Lock()
	f.pushed = append(f.pushed, p)
	f.mu.Unlock()
	if _, err := f.Image(ctx, p.Name); err != nil && !p.All {
		return nil, fault.Say(fault.NotFound, "An image does not exist locally with the tag: "+untagged(p.Name))
	}
	tell(record.Progress{Status: "The push refers to repository [" + untagged(p.Name) + "]"})
	tell(record.Progress{ID: "0123456789ab", Status: "Preparing"})
	tell(record.Progress{ID: "0123456789ab", Status: "Pushing", Current: 1, Total: 2})
	tell(record.Progress{ID: "0123456789ab", Status: "Pushed"})
	tell(record.Progress{Status: "latest: digest: sha256:abc size: 7"})
	return []record.Pushed{{Tag: "latest", Digest: "sha256:abc", Size: 7}}, nil
}

func (f *fake) Login(_ context.Context, a ask.RegistryAuth) (record.LoggedIn, error) {
	if a.Username != "u" || a.Password != "right" {
		return record.LoggedIn{}, fault.Say(fault.Denied, "login attempt to "+a.ServerAddress+" failed: unauthorized: incorrect username or password")
	}
	return record.LoggedIn{Status: "Login Succeeded"}, nil
}
