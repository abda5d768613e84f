// Package cri is the door for Kubernetes: the Container Runtime Interface,
// spoken over gRPC. Nothing is in it yet; it is a package of its own so that
// protobuf and gRPC never enter another binary's start.
package cri
