package docker

import (
	"io"
	"net/http"
	"net/url"
	"testing"
)

func TestSave(t *testing.T) {
	_, socket := serve(t)
	c := raw(socket)
	of := func(platform string) string { return "?names=busybox&platform=" + url.QueryEscape(platform) }
	for _, tc := range []struct {
		path string
		code int
		body string
	}{
		{"/images/get?names=busybox&names=busybox:latest", 200, "an archive"},
		{"/images/busybox/get", 200, "an archive"},
		{"/images/library/busybox:latest/get", 200, "an archive"},
		{"/images/get" + of(`{"os":"linux","architecture":"arm","variant":"v7"}`), 200, "an archive"},
		{"/images/get?names=busybox&names=nowhere", 404, `{"message":"No such image: nowhere"}`},
		{"/images/nowhere/get", 404, `{"message":"No such image: nowhere"}`},
		{"/images/get" + of("linux/amd64"), 400, `{"message":"failed to parse platform \"linux/amd64\""}`},
		{"/images/get" + of(`{"os":"linux","architecture":"arm"}`) + "&platform=" + url.QueryEscape(`{"os":"linux","architecture":"amd64"}`), 200, "an archive"},
		{"/images/get" + of(`{"os":"linux","architecture":"arm"}`) + "&platform=b", 400, `{"message":"failed to parse platform \"b\""}`},
		{"/images/get" + of(`{"os":"linux","architecture":""}`), 400, `{"message":"failed to parse platform \"{\\\"os\\\":\\\"linux\\\",\\\"architecture\\\":\\\"\\\"}\""}`},
	} {
		res, body := get(t, c, "GET", tc.path, "")
		kind := "application/json"
		if tc.code == 200 {
			kind = "application/x-tar"
		}
		if res.StatusCode != tc.code || body != tc.body || res.Header.Get("Content-Type") != kind {
			t.Errorf("%s: %d %q %s", tc.path, res.StatusCode, body, res.Header.Get("Content-Type"))
		}
	}
	// An archive that could not be written to its end does not end.
	res, err := c.Get("http://api.moby.localhost/images/get" + of(`{"os":"broken","architecture":"off"}`))
	if err == nil {
		_, err = io.ReadAll(res.Body)
		res.Body.Close()
	}
	if err == nil {
		t.Error("the client took half an archive for one")
	}
	if res, err := c.Get("http://api.moby.localhost/_ping"); err != nil || res.StatusCode != http.StatusOK {
		t.Error(err)
	}
}
