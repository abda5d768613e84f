// Package nft keeps fief's own nf_tables table: one static ruleset, made over
// netlink, in which networks and published ports are elements of sets and maps.
// Tables of others are read and never changed; no program is run.
package nft
