// Package link speaks rtnetlink. What is in it so far moves a network device
// into a network namespace; bridges, veth pairs and routes are not: networks none
// and host need only the loopback, which the launch plan raises itself.
package link
