// writer writes numbered lines of a thousand bytes, some at a time, and ends with
// a code: writer LINES BURST PAUSE CODE. It forks nothing and sleeps in between, so
// that hundreds of it leave the machine to what is measured.
package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	lines, burst, code := number(1), number(2), number(4)
	pause, err := time.ParseDuration(os.Args[3])
	if err != nil {
		panic(err)
	}
	zeroes := strings.Repeat("0", 991)
	for i := 0; i < lines; {
		var b []byte
		for end := min(i+burst, lines); i < end; i++ {
			b = fmt.Appendf(b, "%07d %s\n", i, zeroes+"0")
		}
		if _, err := os.Stdout.Write(b); err != nil {
			panic(err)
		}
		time.Sleep(pause)
	}
	os.Exit(code)
}

func number(at int) int {
	n, err := strconv.Atoi(os.Args[at])
	if err != nil {
		panic(err)
	}
	return n
}
