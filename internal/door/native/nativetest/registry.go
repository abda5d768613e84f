package nativetest

import (
	"context"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// Push takes the images of Known whose only tag is latest.
func (e *Engine) Push(_ context.Context, p ask.PushImage, progress func(record.Progress)) ([]record.Pushed, error) {
	if len(e.Known) == 0 {
		return nil, fault.Say(fault.NotFound, "An image does not exist locally with the tag: "+p.Name)
	}
	progress(record.Progress{Status: "The push refers to repository [docker.io/library/" + p.Name + "]"})
	progress(record.Progress{ID: "aaaa", Status: "Preparing"})
	progress(record.Progress{ID: "aaaa", Status: "Pushed"})
	return []record.Pushed{{Tag: "latest", Digest: "sha256:abc", Size: 7}}, nil
}

// Login takes the password "right".
func (e *Engine) Login(_ context.Context, a ask.RegistryAuth) (record.LoggedIn, error) {
	if a.Password != "right" {
		return record.LoggedIn{}, fault.Say(fault.Denied, "login attempt to "+a.ServerAddress+" failed: unauthorized: incorrect username or password")
	}
	return record.LoggedIn{Status: "Login Succeeded"}, nil
}
