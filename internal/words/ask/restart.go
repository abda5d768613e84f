package ask

import (
	"strconv"
	"strings"

	"fief/internal/words/fault"
)

// RestartPolicy is Docker's: "no", "always", "on-failure", "unless-stopped".
// MaxRetries counts for on-failure; 0: no bound.
type RestartPolicy struct {
	Name       string
	MaxRetries int
}

// ParseRestart reads what --restart takes: NAME or on-failure:N. Empty is no.
func ParseRestart(text string) (RestartPolicy, error) {
	if text == "" {
		return RestartPolicy{Name: "no"}, nil
	}
	name, count, counted := strings.Cut(text, ":")
	p := RestartPolicy{Name: name}
	if counted && name == "" {
		return p, fault.Say(fault.Invalid, "invalid restart policy format: no policy provided before colon")
	}
	if counted {
		n, err := strconv.Atoi(count)
		if err != nil {
			return p, fault.Say(fault.Invalid, "invalid restart policy format: maximum retry count must be an integer")
		}
		p.MaxRetries = n
	}
	return p, p.Check()
}

// Check refuses what Docker refuses, in its words.
func (p RestartPolicy) Check() error {
	text := ""
	switch p.Name {
	case "", "no", "always", "unless-stopped":
		if p.MaxRetries != 0 {
			text = "invalid restart policy: maximum retry count can only be used with 'on-failure'"
			if p.MaxRetries < 0 {
				text += " and cannot be negative"
			}
		}
	case "on-failure":
		if p.MaxRetries < 0 {
			text = "invalid restart policy: maximum retry count cannot be negative"
		}
	default:
		text = "invalid restart policy: unknown policy '" + p.Name + "'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
	}
	if text != "" {
		return fault.Say(fault.Invalid, text)
	}
	return nil
}

// Restarts reports whether the policy ever starts a container again.
func (p RestartPolicy) Restarts() bool { return p.Name != "" && p.Name != "no" }
