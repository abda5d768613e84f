package launch

import "testing"

func TestBitmask(t *testing.T) {
	for list, want := range map[string]string{
		"": "", "0": "\x01\x00\x00\x00\x00\x00\x00\x00", "0-3,7": "\x8f\x00\x00\x00\x00\x00\x00\x00", "3, 1": "\x0a\x00\x00\x00\x00\x00\x00\x00",
		"64": "\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00",
	} {
		if got, err := bitmask("", list); err != nil || got != want {
			t.Errorf("%s: %q, %v", list, got, err)
		}
	}
	for _, list := range []string{",", "1-", "-1", "2-1", "a", "8192", "0-70000", "1,,2"} {
		if _, err := bitmask("", list); err == nil {
			t.Error(list)
		}
	}
}
