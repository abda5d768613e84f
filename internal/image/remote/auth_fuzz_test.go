package remote

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fief/internal/words/ask"

	"github.com/distribution/reference"
)

// FuzzAuthHeader: whatever a registry asks for in WWW-Authenticate, and
// whatever its token server answers, is an error in bounded time, and the
// password is sent nowhere but where the header says.
func FuzzAuthHeader(f *testing.F) {
	f.Add(`Bearer realm="HOST/token",service="x",scope="repository:app:pull"`, `{"token":"t"}`)
	f.Add(`Bearer realm="HOST/token"`, `{"access_token":"\u0000\r\n"}`)
	f.Add(`Basic realm="x"`, "")
	f.Add(`Bearer realm="file:///etc/passwd"`, "")
	f.Add(`bearer REALM=HOST/token,,,=,"`, "{}")
	f.Add("Digest qop=\"\\", "null")
	f.Fuzz(func(t *testing.T, header, token string) {
		if i := strings.Index(header, "://"); i >= 0 && !strings.Contains(header, "file:") {
			return // some other host
		}
		var asked atomic.Int32
		var s *httptest.Server
		s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			if strings.HasPrefix(r.URL.Path, "/token") {
				w.Write([]byte(token))
				return
			}
			w.Header().Set("WWW-Authenticate", strings.ReplaceAll(header, "HOST", s.URL))
			w.WriteHeader(http.StatusUnauthorized)
		}))
		defer s.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		name, err := reference.ParseNormalizedNamed(strings.TrimPrefix(s.URL, "http://") + "/app")
		if err != nil {
			t.Fatal(err)
		}
		r, err := Connect(ctx, name, Options{PlainHTTP: true, Auth: ask.RegistryAuth{Username: "u", Password: "p"}, Stall: time.Second})
		if err != nil {
			return
		}
		defer r.Close()
		if _, _, err := r.Manifest(ctx, "latest"); err == nil {
			t.Fatalf("%q was an answer", header)
		}
		if ctx.Err() != nil || asked.Load() > 20 {
			t.Fatalf("%q: %v, %d requests", header, ctx.Err(), asked.Load())
		}
	})
}
