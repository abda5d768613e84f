//go:build weak

package main

const sealing = false
