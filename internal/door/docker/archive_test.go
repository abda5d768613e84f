package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// The fake has one file, /etc/hosts, and takes archives at /in; reading /broken
// fails half way and reading /refused at once.

func (f *fake) StatPath(_ context.Context, id, path string) (record.PathStat, error) {
	switch path {
	case "/etc/hosts", "/broken", "/refused":
		return record.PathStat{Name: "hosts", Size: 5, Mode: fs.ModeSymlink | 0o777, Mtime: time.Unix(1, 0).UTC(), LinkTarget: "/x"}, nil
	}
	return record.PathStat{}, fault.Say(fault.NotFound, "Could not find the file "+path+" in container "+id)
}

func (f *fake) ReadPath(ctx context.Context, id, path string) (record.PathStat, io.ReadCloser, error) {
	stat, err := f.StatPath(ctx, id, path)
	if err != nil {
		return stat, nil, err
	}
	out, in := io.Pipe()
	go func() {
		switch path {
		case "/refused":
			in.CloseWithError(fault.Say(fault.Denied, "it is a file of the kernel"))
		case "/broken":
			in.Write(make([]byte, 1<<16))
			in.CloseWithError(fault.Say(fault.Conflict, "it became shorter"))
		default:
			w := tar.NewWriter(in)
			w.WriteHeader(&tar.Header{Name: "hosts", Typeflag: tar.TypeSymlink, Linkname: "x"})
			in.CloseWithError(w.Close())
		}
	}()
	return stat, out, nil
}

func (f *fake) WritePath(_ context.Context, _ string, c ask.CopyIn, r io.Reader) error {
	body, err := io.ReadAll(r)
	if err != nil || c != (ask.CopyIn{Path: "/in", KeepKinds: true}) || string(body) != "an archive" {
		return fault.Say(fault.Denied, "container rootfs is marked read-only")
	}
	return nil
}

func TestArchive(t *testing.T) {
	server := httptest.NewServer(New(newFake(), Options{Version: "test"}))
	defer server.Close()
	ask := func(method, query, body string) (*http.Response, string, error) {
		t.Helper()
		r, err := http.NewRequest(method, server.URL+"/v1.51/containers/c/archive"+query, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		return res, string(text), err
	}
	for _, method := range []string{"HEAD", "GET"} {
		res, body, err := ask(method, "?path=/etc/hosts", "")
		text, decodeErr := base64.StdEncoding.DecodeString(res.Header.Get("X-Docker-Container-Path-Stat"))
		const want = `{"name":"hosts","size":5,"mode":134218239,"mtime":"1970-01-01T00:00:01Z","linkTarget":"/x"}`
		if err != nil || decodeErr != nil || res.StatusCode != 200 || string(text) != want {
			t.Errorf("%s: %d %s, %v, %v", method, res.StatusCode, text, err, decodeErr)
		}
		if !json.Valid(text) || method == "GET" && (res.Header.Get("Content-Type") != "application/x-tar" || !bytes.HasPrefix([]byte(body), []byte("hosts\x00"))) {
			t.Errorf("%s: %q", method, body)
		}
	}
	for _, c := range []struct {
		method, query, body string
		code                int
		want                string
	}{
		{"HEAD", "?path=/none", "", 404, ""},
		{"GET", "?path=/none", "", 404, "Could not find the file /none in container c"},
		{"GET", "", "", 400, "bad parameter: 'path' cannot be empty"},
		{"GET", "?path=/refused", "", 403, "file of the kernel"},
		{"PUT", "", "", 400, "bad parameter: 'path' cannot be empty"},
		{"PUT", "?path=/in&noOverwriteDirNonDir=true", "an archive", 200, ""},
		{"PUT", "?path=/in", "an archive", 403, "marked read-only"},
	} {
		res, body, err := ask(c.method, c.query, c.body)
		if err != nil || res.StatusCode != c.code || !strings.Contains(body, c.want) {
			t.Errorf("%s %s: %d %s, %v", c.method, c.query, res.StatusCode, body, err)
		}
	}
	res, _, err := ask("GET", "?path=/broken", "")
	if res.StatusCode != 200 || err == nil {
		t.Error("an archive cut off looked whole")
	}
}
