package docker

import (
	"context"
	"net/http"

	"github.com/moby/moby/api/types/container"

	"fief/internal/engine"
	"fief/internal/words/ask"
	"fief/internal/words/record"
)

// lifecycle is what moves a container from one state to the next. Wait has
// registered its waiter when it returns; the channel gets one value.
type lifecycle interface {
	Start(ctx context.Context, id string) error
	Stop(ctx context.Context, id string, how ask.Stop) error
	Restart(ctx context.Context, id string, how ask.Stop) error
	Kill(ctx context.Context, id, signal string) error
	UpdateRestart(ctx context.Context, id string, p ask.RestartPolicy) error
	Wait(ctx context.Context, id string, when engine.WaitFor) (<-chan record.Exit, error)
}

func (d *door) lifecycleRoutes() []route {
	return []route{
		on("POST /containers/*/start", d.start),
		on("POST /containers/*/stop", d.stop),
		on("POST /containers/*/restart", d.restart),
		on("POST /containers/*/kill", d.kill),
		on("POST /containers/*/wait", d.wait),
	}
}

// start refuses a body, as Docker does since API 1.24: until then it held a
// host config. Seven bytes are the "null" or "{}" of old clients.
func (d *door) start(w http.ResponseWriter, r *request) error {
	if r.ContentLength > 7 || r.ContentLength < 0 {
		return invalid("starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24")
	}
	if r.Form.Get("checkpoint") != "" {
		return refuse("starting from a checkpoint", "leave out --checkpoint")
	}
	if err := d.engine.Start(r.uncut(), r.name); err != nil {
		return err
	}
	return noContent(w)
}

func (d *door) stop(w http.ResponseWriter, r *request) error {
	how, err := r.howToStop()
	if err != nil {
		return err
	}
	if err := d.engine.Stop(r.uncut(), r.name, how); err != nil {
		return err
	}
	return noContent(w)
}

func (d *door) restart(w http.ResponseWriter, r *request) error {
	how, err := r.howToStop()
	if err != nil {
		return err
	}
	if err := d.engine.Restart(r.uncut(), r.name, how); err != nil {
		return err
	}
	return noContent(w)
}

func (r *request) howToStop() (ask.Stop, error) {
	timeout, err := r.number("t")
	return ask.Stop{Signal: r.Form.Get("signal"), Timeout: timeout}, err
}

func (d *door) kill(w http.ResponseWriter, r *request) error {
	signal := r.Form.Get("signal")
	if signal == "" {
		signal = "SIGKILL"
	}
	if err := d.engine.Kill(r.uncut(), r.name, signal); err != nil {
		return err
	}
	return noContent(w)
}

// wait sends its headers as soon as the waiter is registered: `docker run`
// starts the container only when it has seen them.
func (d *door) wait(w http.ResponseWriter, r *request) error {
	when, err := waitCondition(r.Form.Get("condition"))
	if err != nil {
		return err
	}
	over, err := d.engine.Wait(r.Context(), r.name, when)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	flush(w)
	select {
	case exit := <-over:
		// The response's Error is for a wait that failed. Why a start failed
		// is the start's answer; here the client would print it twice.
		return ok(w, container.WaitResponse{StatusCode: int64(exit.Code)})
	case <-r.Context().Done():
		return nil
	}
}

func waitCondition(s string) (engine.WaitFor, error) {
	switch container.WaitCondition(s) {
	case "", container.WaitConditionNotRunning:
		return engine.NotRunning, nil
	case container.WaitConditionNextExit:
		return engine.NextExit, nil
	case container.WaitConditionRemoved:
		return engine.Gone, nil
	}
	return 0, invalid("invalid condition: %q", s)
}
