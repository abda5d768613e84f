package cli

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
)

// configName is docker's configuration file; empty when there is no place for it.
func configName() string {
	dir := os.Getenv("DOCKER_CONFIG")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		dir = filepath.Join(home, ".docker")
	}
	return filepath.Join(dir, "config.json")
}

// readConfig reads docker's configuration. whole has every key, also those
// that fief does not know: they are written back as they were.
func readConfig(name string) (c dockerConfig, whole map[string]json.RawMessage, err error) {
	whole = map[string]json.RawMessage{}
	raw, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return c, whole, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &whole)
	}
	if err == nil {
		err = json.Unmarshal(raw, &c)
	}
	if whole == nil { // the file says null
		whole = map[string]json.RawMessage{}
	}
	return c, whole, fault.Wrap(fault.Invalid, "read", name, err, "")
}

// helper is the credential helper for a registry; empty: the file itself.
func (c dockerConfig) helper(key string) string {
	if h, ok := c.CredHelpers[key]; ok {
		return h
	}
	return c.CredsStore
}

// keepCredentials stores what a registry has taken. file is where it lies
// readable for who reads the file; empty when a helper has it.
func keepCredentials(a ask.RegistryAuth) (file string, err error) {
	name := configName()
	if name == "" {
		return "", fault.New(fault.Invalid, "keep credentials of", a.ServerAddress, "there is no home directory", "set DOCKER_CONFIG to a directory")
	}
	c, whole, err := readConfig(name)
	if err != nil {
		return "", err
	}
	if h := c.helper(a.ServerAddress); h != "" {
		user, secret := a.Username, a.Password
		if a.IdentityToken != "" {
			user, secret = "<token>", a.IdentityToken
		}
		in, err := json.Marshal(struct{ ServerURL, Username, Secret string }{a.ServerAddress, user, secret})
		if err != nil {
			return "", fault.Wrap(fault.Internal, "write", "credentials", err, "")
		}
		return "", tellHelper(h, "store", string(in))
	}
	entry := map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(a.Username + ":" + a.Password))}
	if a.IdentityToken != "" {
		entry["identitytoken"] = a.IdentityToken
	}
	return name, changeAuths(name, whole, func(auths map[string]json.RawMessage) {
		auths[a.ServerAddress], _ = json.Marshal(entry) // strings always encode
	})
}

// dropCredentials forgets a registry's credentials; known says that there were
// some.
func dropCredentials(key string) (known bool, err error) {
	name := configName()
	if name == "" {
		return false, nil
	}
	c, whole, err := readConfig(name)
	if err != nil {
		return false, err
	}
	if h := c.helper(key); h != "" {
		got, err := askHelper(h, key)
		if err != nil || got == (ask.RegistryAuth{}) {
			return false, err
		}
		return true, tellHelper(h, "erase", key)
	}
	for k := range c.Auths {
		known = known || serverOf(k) == key
	}
	if !known {
		return false, nil
	}
	return true, changeAuths(name, whole, func(auths map[string]json.RawMessage) {
		for k := range auths {
			if serverOf(k) == key {
				delete(auths, k)
			}
		}
	})
}

// serverOf is a key of auths as find compares it.
func serverOf(key string) string {
	if key == hub {
		return key
	}
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://"), "/")
}

// changeAuths writes the file anew with other auths. It is replaced, so that a
// crash or a full disk leaves the old one, and only its owner can read it.
func changeAuths(name string, whole map[string]json.RawMessage, change func(map[string]json.RawMessage)) error {
	auths := map[string]json.RawMessage{}
	if raw, ok := whole["auths"]; ok {
		if err := json.Unmarshal(raw, &auths); err != nil {
			return fault.Wrap(fault.Invalid, "read", name, err, "")
		}
	}
	if auths == nil { // so does its auths
		auths = map[string]json.RawMessage{}
	}
	change(auths)
	var err error
	if whole["auths"], err = json.Marshal(auths); err != nil {
		return fault.Wrap(fault.Internal, "write", name, err, "")
	}
	raw, err := json.MarshalIndent(whole, "", "\t")
	if err != nil {
		return fault.Wrap(fault.Internal, "write", name, err, "")
	}
	return replaceFile(name, raw)
}

func replaceFile(name string, raw []byte) error {
	if real, err := filepath.EvalSymlinks(name); err == nil {
		name = real // a configuration that is a link stays one
	}
	fail := func(err error) error { return fault.Wrap(fault.Invalid, "write", name, err, "") }
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fail(err)
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".config.json-") // mode 0600
	if err != nil {
		return fail(err)
	}
	defer os.Remove(f.Name()) // nothing is there after the rename
	_, err = f.Write(raw)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	return fail(err)
}

// tellHelper runs docker-credential-NAME with something to keep or to forget.
func tellHelper(helper, deed, in string) error {
	if strings.ContainsRune(helper, '/') {
		return fault.New(fault.Invalid, "use credential helper", helper, "its name is a path", "")
	}
	cmd := exec.Command("docker-credential-"+helper, deed)
	cmd.Stdin = strings.NewReader(in)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fault.Wrap(fault.Unavailable, "tell credential helper", helper, errors.New(strings.TrimSpace(string(out))+": "+err.Error()), "")
	}
	return nil
}
