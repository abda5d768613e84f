// Command fief is the command line.
package main

import (
	"os"

	"fief/internal/cli"
	"fief/internal/cli/fast"
)

// version is set by the linker.
var version = "dev"

func main() {
	words := os.Args[1:]
	if code, handled := fast.Run(words, cli.Reconnect); handled {
		os.Exit(code)
	}
	os.Exit(cli.Main(words, version))
}
