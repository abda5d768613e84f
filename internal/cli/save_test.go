package cli_test

import (
	"os"
	"strings"
	"testing"

	"fief/internal/cli"
)

func TestSaveRefusesTerminal(t *testing.T) {
	_, slave := terminal(t)
	c := &cli.Client{Out: os.Stdout, Err: os.Stderr, In: os.Stdin, Files: [3]*os.File{os.Stdin, slave, os.Stderr}}
	for _, cmd := range cli.Commands() {
		if cmd.Name != "save" {
			continue
		}
		_, act := cmd.Flags()
		if err := act(c, []string{"busybox"}); err == nil || !strings.Contains(err.Error(), "cowardly refusing to save to a terminal. Use the -o flag or redirect") {
			t.Errorf("got %v", err)
		}
	}
}
