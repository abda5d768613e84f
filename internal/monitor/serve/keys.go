package serve

import "bytes"

// detachKeys finds a sequence of keys in a stream of input, whatever the
// pieces it comes in. The beginning of a possible match is held back until the
// next key decides.
type detachKeys struct {
	keys []byte // empty: nothing is ever found
	held int    // so many of keys have been seen and not passed on
}

// feed returns what is to be passed on of p. When the sequence is complete
// found is true, and the sequence and what comes after it are dropped.
func (d *detachKeys) feed(p []byte) (pass []byte, found bool) {
	if len(d.keys) == 0 {
		return p, false
	}
	all := p
	if d.held > 0 {
		all = append(append(make([]byte, 0, d.held+len(p)), d.keys[:d.held]...), p...)
		d.held = 0
	}
	if at := bytes.Index(all, d.keys); at >= 0 {
		return all[:at], true
	}
	for n := min(len(d.keys)-1, len(all)); n > 0; n-- {
		if bytes.HasSuffix(all, d.keys[:n]) {
			d.held = n
			break
		}
	}
	return all[:len(all)-d.held], false
}

// rest returns what is still held back; the stream has ended.
func (d *detachKeys) rest() []byte {
	p := d.keys[:d.held]
	d.held = 0
	return p
}
