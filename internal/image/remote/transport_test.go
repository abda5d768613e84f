package remote

import (
	"strings"
	"testing"
)

func TestMayBeInsecure(t *testing.T) {
	listed := []string{"reg.example:5000", "plain.example", "10.0.0.0/8", "fd00::/8", "not a cidr/8"}
	yes := "localhost localhost:5000 127.0.0.1 127.9.9.9:80 [::1]:5000 ::1 [::ffff:127.0.0.1]:5000 reg.example:5000 plain.example 10.1.2.3:5000 [fd00::1]:80"
	no := "reg.example reg.example:5001 plain.example:80 11.1.2.3 registry-1.docker.io localhost.example 127.0.0.1.example [fe80::1]:80"
	for host := range strings.SplitSeq(yes, " ") {
		if !mayBeInsecure(host, listed) {
			t.Errorf("%s must not need TLS", host)
		}
	}
	for host := range strings.SplitSeq(no, " ") {
		if mayBeInsecure(host, listed) {
			t.Errorf("%s must need TLS", host)
		}
	}
}
