// Package harden names what a process can be held to: capabilities, resource
// limits and signals, by name and by the kernel's number. It changes nothing.
package harden
