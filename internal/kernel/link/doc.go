// Package link speaks rtnetlink(7): it makes bridges and the devices that
// connect a container's network namespace with the host's, with addresses and
// routes, in as few requests as there can be, and moves devices. It is written by
// hand because the monitor carries it: what a start needs is made by the daemon
// as bytes (Wiring) and sent by the monitor.
package link
