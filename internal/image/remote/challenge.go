package remote

import (
	"strings"
)

// challenge is what a registry demands with a 401 (RFC 9110 §11.6.1).
type challenge struct {
	scheme string            // lower case: "basic", "bearer", or one that is not spoken here
	params map[string]string // by lower-case name
}

// chooseChallenge picks the demand that is answered: a token, which is given
// for one repository, before a password. Zero when neither is taken.
func chooseChallenge(headers []string) (chosen challenge) {
	for _, h := range headers {
		for _, c := range parseChallenges(h) {
			if c.scheme == "bearer" || c.scheme == "basic" && chosen.scheme == "" {
				chosen = c
			}
			if c.scheme == "bearer" {
				return chosen
			}
		}
	}
	return chosen
}

// parseChallenges reads one header, which may hold several challenges. What
// cannot be read ends it; what was read before counts.
func parseChallenges(header string) (all []challenge) {
	rest := header
	for {
		rest = strings.TrimLeft(rest, " \t,")
		var scheme string
		if scheme, rest = cutToken(rest); scheme == "" {
			return all
		}
		c := challenge{scheme: strings.ToLower(scheme), params: map[string]string{}}
		rest = c.take(rest)
		all = append(all, c)
	}
}

// take reads parameters up to the next challenge, which begins with a token
// that no "=" follows, and returns what is left.
func (c challenge) take(rest string) string {
	for {
		rest = strings.TrimLeft(rest, " \t,")
		name, after := cutToken(rest)
		after = strings.TrimLeft(after, " \t")
		if name == "" || !strings.HasPrefix(after, "=") {
			return rest
		}
		value, after, ok := cutValue(strings.TrimLeft(after[1:], " \t"))
		if !ok {
			return ""
		}
		if _, twice := c.params[strings.ToLower(name)]; !twice {
			c.params[strings.ToLower(name)] = value
		}
		rest = after
	}
}

// cutToken cuts a token (RFC 9110 §5.6.2) off.
func cutToken(s string) (token, rest string) {
	i := strings.IndexFunc(s, func(r rune) bool {
		return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
	if i < 0 {
		return s, ""
	}
	return s[:i], s[i:]
}

// cutValue cuts a token or a quoted string (RFC 9110 §5.6.4) off.
func cutValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		value, rest = cutToken(s)
		return value, rest, value != ""
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], true
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}
