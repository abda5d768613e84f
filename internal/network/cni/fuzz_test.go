package cni

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types/create"
)

// FuzzParse: whatever a list's file says, it is refused or its text says the same
// list again, with plugins whose names lead nowhere.
func FuzzParse(f *testing.F) {
	f.Add(`{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "bridge", "capabilities": {"ips": true}}]}`)
	f.Add(`{"cniVersion": "0.3.1", "name": "n", "type": "bridge"}`)
	f.Add(`{"cniVersions": ["0.4.0", "9.0.0"], "name": "n", "disableCheck": "true", "plugins": [{"type": "../x"}]}`)
	f.Add(`{"name": 7, "plugins": {}}`)
	f.Fuzz(func(t *testing.T, text string) {
		l, err := Parse([]byte(text))
		if err != nil {
			return
		}
		if l.Name == "" || len(l.Types) == 0 {
			t.Fatalf("%q: name %q, plugins %q", text, l.Name, l.Types)
		}
		for _, kind := range l.Types {
			if kind == "" || kind == ".." || strings.Contains(kind, "/") {
				t.Fatalf("%q: plugin %q", text, kind)
			}
		}
		again, err := Parse([]byte(l.Text))
		if err != nil || again.Name != l.Name || strings.Join(again.Types, " ") != strings.Join(l.Types, " ") {
			t.Fatalf("%q: its text is another list: %+v, %v", text, again, err)
		}
		if _, err := l.runtime(Want{Container: "c", Device: "eth0", MAC: "02:00:00:00:00:01"}, "/n"); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzResult: whatever plugins answer, what is taken of it is valid, can be lines
// of a resolv.conf, and is what was asked for.
func FuzzResult(f *testing.F) {
	f.Add(`{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"/n"}],"ips":[{"interface":0,"address":"10.1.2.3/24","gateway":"10.1.2.1"}],"dns":{"nameservers":["10.0.0.1"],"search":["a b","c"]}}`)
	f.Add(`{"cniVersion":"0.4.0","ips":[{"version":"6","address":"fd00::2/64"},null]}`)
	f.Add(`{"cniVersion":"0.2.0","ip4":{"ip":"10.1.2.3/24"},"dns":{"domain":"x\ny"}}`)
	f.Add(`{"cniVersion":"1.0.0","interfaces":[null],"ips":[{"interface":-1,"address":"10.1.2.3/24"}]}`)
	want := netip.MustParseAddr("10.1.2.3")
	f.Fuzz(func(t *testing.T, text string) {
		var head struct {
			Version string `json:"cniVersion"`
		}
		if json.Unmarshal([]byte(text), &head) != nil {
			return
		}
		var got Got
		err := safely(func() error {
			r, err := create.CreateFromBytes([]byte(text))
			if err == nil {
				got, err = understood(r, Want{Container: "c", Device: "eth0", IPs: []netip.Addr{want}})
			}
			return err
		})
		if err != nil {
			return
		}
		if got.IP4.Addr() != want {
			t.Fatalf("%q: %v was not given: %+v", text, want, got)
		}
		for _, word := range append(append(got.Servers, got.Search...), got.Options...) {
			if word == "" || strings.ContainsAny(word, " \t\r\n") {
				t.Fatalf("%q: a line of resolv.conf with %q", text, word)
			}
		}
	})
}
