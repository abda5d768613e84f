// Package attack tries whole containers: what they are given, and what a hostile
// one can reach.
package attack
