// Package link speaks rtnetlink: bridges, veth pairs, addresses and routes.
// Nothing is in it yet: networks none and host need only the loopback, which
// the launch plan raises itself.
package link
