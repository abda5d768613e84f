// Package nft speaks nf_tables over netlink: one static ruleset, changed by
// set and map elements. Nothing is in it yet: it arrives with published ports.
package nft
