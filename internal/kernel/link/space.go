package link

import "os"

// Within calls do on a thread that is in a network namespace and waits for it:
// sockets made there are the namespace's for as long as they are open. A thread
// that cannot go back is never used again.
func Within(netns *os.File, do func() error) error { return within(netns, do) }
