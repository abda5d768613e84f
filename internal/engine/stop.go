package engine

import (
	"context"
	"syscall"
	"time"

	"github.com/moby/sys/signal"

	"fief/internal/monitor"
	"fief/internal/words/ask"
	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// stopDefault is how long a stop waits before it kills (docker-stop(1)).
const stopDefault = 10

// Stop asks a container to end and kills it when it has not ended in time.
// NotModified when it is not running. It goes on when ctx ends: a client that
// hangs up has still asked for the stop.
func (e *Engine) Stop(ctx context.Context, name string, how ask.Stop) error {
	c, err := e.claim(ctx, name)
	if err != nil {
		return err
	}
	defer c.free()
	if err := e.stopClaimed(context.WithoutCancel(ctx), c, how); err != nil {
		return err
	}
	e.tell("stop", c.record(), nil)
	return nil
}

// stopClaimed ends a container and leaves the telling to the verb: a forced
// removal is no stop to docker clients.
func (e *Engine) stopClaimed(ctx context.Context, c *container, how ask.Stop) error {
	mon, err := c.monitor("stop")
	if err != nil {
		if e.giveUp(c) {
			return nil
		}
		return fault.Say(fault.NotModified, "container "+c.record().Name+" is not running")
	}
	rec := c.record()
	sig, err := parseSignal(first(how.Signal, rec.StopSignal, "SIGTERM"))
	if err != nil {
		return err
	}
	e.stopping(c)
	exit := c.await(NotRunning)
	failpoint.Hit("container-stopping")
	if err := e.send(ctx, c, mon, sig); err != nil {
		return err
	}
	failpoint.Hit("container-signalled")
	if waitExit(exit, stopTimeout(how, rec)) {
		return nil
	}
	if sig != syscall.SIGKILL {
		if err := e.send(ctx, c, mon, syscall.SIGKILL); err != nil {
			return err
		}
	}
	<-exit
	return nil
}

// send delivers a signal. A container that has just ended is no error: the
// monitor says Conflict between the end and the news of it.
func (e *Engine) send(ctx context.Context, c *container, mon *monitor.Monitor, sig syscall.Signal) error {
	e.tell("kill", c.record(), map[string]string{"signal": signalNumber(sig)}) // before the die it causes
	err := mon.Signal(ctx, "", sig)
	if err != nil && !over(c, mon, err) {
		return err
	}
	e.resumeFor(c, sig)
	return nil
}

// over reports whether a signal failed only because the container has ended,
// though the engine may not have taken note of it yet.
func over(c *container, mon *monitor.Monitor, err error) bool {
	select {
	case <-mon.Gone():
		return true
	default:
	}
	return c.record().State.Status != record.Running ||
		fault.Is(err, fault.Conflict) || fault.Is(err, fault.NotFound) || fault.Is(err, fault.Unavailable)
}

// stopTimeout is the grace in force; negative for ever.
func stopTimeout(how ask.Stop, rec record.Container) time.Duration {
	seconds := stopDefault
	if rec.StopTimeout != nil {
		seconds = *rec.StopTimeout
	}
	if how.Timeout != nil {
		seconds = *how.Timeout
	}
	return time.Duration(seconds) * time.Second
}

// waitExit reports whether the exit came within d (negative: waits for ever).
func waitExit(exit <-chan record.Exit, d time.Duration) bool {
	if d < 0 {
		<-exit
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-exit:
		return true
	case <-t.C:
		return false
	}
}

// Kill sends a signal to process 1; empty means SIGKILL. One that ends a container
// ends its waiting for a restart.
func (e *Engine) Kill(ctx context.Context, name, sigName string) error {
	c, err := e.table.find(name)
	if err != nil {
		return err
	}
	sig, err := parseSignal(first(sigName, "SIGKILL"))
	if err != nil {
		return err
	}
	ends := sig == syscall.SIGKILL || isStopSignal(sig, c.record())
	mon, err := c.monitor("kill")
	if err != nil && ends && c.record().State.Status == record.Restarting {
		// Nothing is there to be killed, but nothing is to come back either.
		if err := c.take(ctx); err != nil {
			return err
		}
		given := e.giveUp(c)
		c.free()
		if given {
			return nil
		}
		mon, err = c.monitor("kill")
	}
	if err != nil {
		return err
	}
	if ends {
		e.stopping(c)
	}
	exit := c.await(NotRunning)
	if err := e.send(ctx, c, mon, sig); err != nil {
		return err
	}
	failpoint.Hit("container-killed")
	if sig == syscall.SIGKILL {
		select {
		case <-exit:
		case <-ctx.Done():
		}
	}
	return nil
}

// Restart stops a running container and starts it again under one claim.
func (e *Engine) Restart(ctx context.Context, name string, how ask.Stop) error {
	c, err := e.claim(ctx, name)
	if err != nil {
		return err
	}
	defer c.free()
	ctx = context.WithoutCancel(ctx)
	if c.record().AutoRemove {
		return fault.New(fault.Conflict, "restart", c.record().Name, "it is removed when it ends", "start a new one")
	}
	defer c.between()()
	switch err := e.stopClaimed(ctx, c, how); {
	case err == nil:
		e.tell("stop", c.record(), nil)
	case !fault.Is(err, fault.NotModified):
		return err
	}
	c.begin()
	failpoint.Hit("container-between")
	if err := e.startClaimed(ctx, c, nil); err != nil {
		return err
	}
	e.tell("restart", c.record(), nil)
	return nil
}

// isStopSignal reports whether a signal is what a stop sends: Docker takes it for
// one.
func isStopSignal(sig syscall.Signal, rec record.Container) bool {
	stop, err := parseSignal(first(rec.StopSignal, "SIGTERM"))
	return err == nil && sig == stop
}

func parseSignal(name string) (syscall.Signal, error) {
	sig, err := signal.ParseSignal(name)
	if err != nil {
		return 0, fault.Say(fault.Invalid, "invalid signal: "+name)
	}
	return sig, nil
}
