package main

import (
	"fief/internal/image"
	"fief/internal/snapshot"
	"fief/internal/store"
	"fief/internal/words/fault"
)

// registrySettings is [registries."NAME"] of fief.toml.
type registrySettings struct {
	Mirrors  []string `toml:"mirrors"`
	Insecure bool     `toml:"insecure"`
}

// policySettings is [policy] of fief.toml.
type policySettings struct {
	Require []requireSettings `toml:"require"`
}

type requireSettings struct {
	Registry string   `toml:"registry"`
	Keys     []string `toml:"keys"`
	SignedAs string   `toml:"signed-as"`
}

// reach is how registries are reached.
func (s settings) reach() (image.Registries, error) {
	all := image.Registries{}
	for name, r := range s.Registries {
		if err := all.ParseRegistry(name, r.Mirrors, r.Insecure); err != nil {
			return nil, fault.Wrap(fault.Invalid, "read configuration", s.configFile, err, "")
		}
	}
	return all, nil
}

// policy is which images need signatures. Its keys are read now: a daemon that
// cannot verify must not start.
func (s settings) policy() (p image.Policy, err error) {
	for _, r := range s.Policy.Require {
		if p, err = p.Require(r.Registry, r.Keys, r.SignedAs); err != nil {
			return nil, fault.Wrap(fault.Invalid, "read configuration", s.configFile, err, "")
		}
	}
	return p, nil
}

// openImages opens the images above their layers.
func openImages(s settings, db *store.DB, snaps *snapshot.Store) (*image.Store, error) {
	registries, err := s.reach()
	if err != nil {
		return nil, err
	}
	policy, err := s.policy()
	if err != nil {
		return nil, err
	}
	return image.Open(s.DataRoot, db.Bucket("images"), layers{snaps}, image.Options{
		Insecure: s.Insecure, UserAgent: "fief/" + version, Registries: registries, Policy: policy,
	})
}
