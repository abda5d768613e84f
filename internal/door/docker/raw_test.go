package docker

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"fief/internal/words/record"
)

// raw is an HTTP client on a unix socket.
func raw(socket string) *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
}

func get(t *testing.T, c *http.Client, method, path, body string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, "http://api.moby.localhost"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(body, "{") {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, strings.TrimSpace(string(b))
}

func TestPathsAndVersions(t *testing.T) {
	_, socket := serve(t)
	c := raw(socket)
	for _, tc := range []struct {
		method, path string
		code         int
		body         string
	}{
		{"GET", "/_ping", 200, "OK"},
		{"HEAD", "/_ping", 200, ""},
		{"GET", "/v1.24/_ping", 200, "OK"},
		{"GET", "/v1.51/_ping", 200, "OK"},
		{"GET", "/v1.52/_ping", 400, `{"message":"client version 1.52 is too new. Maximum supported API version is 1.51"}`},
		{"GET", "/v1.23/version", 400, "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"},
		{"GET", "/v2.0/version", 400, `{"message":"client version 2.0 is too new. Maximum supported API version is 1.51"}`},
		{"GET", "/nothing", 404, `{"message":"page not found"}`},
		{"GET", "/v1.51", 404, `{"message":"page not found"}`},
		{"GET", "/v1/version", 404, `{"message":"page not found"}`},
		{"POST", "/version", 404, `{"message":"page not found"}`},
		{"DELETE", "/containers/json", 404, `{"message":"No such container: json"}`},
		{"GET", "/containers/nope/json", 404, `{"message":"No such container: nope"}`},
		{"GET", "/images/a/b/c:d/json", 404, `{"message":"No such image: a/b/c:d"}`},
		{"GET", "/images/busybox/json?platform=%7B%22os%22%3A%22linux%22%2C%22architecture%22%3A%22s390x%22%7D", 404,
			`{"message":"image with reference busybox was found but does not match the specified platform: wanted linux/s390x, actual: linux/amd64"}`},
		{"GET", "/networks/nope", 404, `{"message":"network nope not found"}`},
		{"DELETE", "/networks/none", 403, `{"message":"none is a pre-defined network and cannot be removed"}`},
		{"GET", "/volumes/nope", 404, `{"message":"get nope: no such volume"}`},
		{"GET", "/volumes?filters=%7B%22dangling%22%3A%5B%22true%22%5D%7D", 200, `{"Volumes":[],"Warnings":[]}`},
		{"GET", "/volumes/kept", 200, `{"CreatedAt":"1970-01-01T00:00:01Z","Driver":"local","Labels":null,"Mountpoint":"/v/kept/_data","Name":"kept","Options":null,"Scope":"local"}`},
		{"DELETE", "/volumes/kept", 409, `{"message":"remove kept: volume is in use - [c1]"}`},
		{"DELETE", "/volumes/nope", 404, `{"message":"get nope: no such volume"}`},
		{"DELETE", "/volumes/nope?force=1", 204, ``},
		{"GET", "/plugins", 200, `[]`},
		{"GET", "/containers/json", 200, `[]`},
		{"GET", "/containers/json?filters=%7B%22odd%22%3A%5B%22x%22%5D%7D", 400, `{"message":"invalid filter 'odd'"}`},
		{"GET", "/containers/json?filters=%7B%22label%22%3A%5B%22a%3Db%22%5D%7D", 200, `[]`},
		{"POST", "/containers/create", 400, `{"message":"unsupported Content-Type header (): must be 'application/json'"}`},
		{"POST", "/images/create?fromImage=absent&tag=1", 404,
			`{"message":"pull access denied for docker.io/library/absent:1, repository does not exist or may require 'docker login'"}`},
		{"POST", "/images/create?fromImage=UPPER", 400, `{"message":"invalid reference format: repository name (library/UPPER) must be lowercase"}`},
		{"POST", "/images/create?fromSrc=https://x/y", 503, `{"message":"fetching https://x/y"}`},
		{"POST", "/images/create?fromSrc=x.example/y", 503, `{"message":"fetching http://x.example/y"}`},
		{"POST", "/containers/x/checkpoints", 501, `{"message":"checkpointing is not supported"}`},
		{"POST", "/containers/x/wait?condition=odd", 400, `{"message":"invalid condition: \"odd\""}`},
		{"GET", "/containers/x/logs", 400, `{"message":"Bad parameters: you must choose at least one stream"}`},
	} {
		res, body := get(t, c, tc.method, tc.path, "")
		if tc.method == "POST" && tc.path == "/containers/create" {
			res, body = get(t, c, tc.method, tc.path, "text")
		}
		if res.StatusCode != tc.code || body != tc.body {
			t.Errorf("%s %s: %d %q, want %d %q", tc.method, tc.path, res.StatusCode, body, tc.code, tc.body)
		}
		for key, want := range map[string]string{"Api-Version": "1.51", "Ostype": "linux", "Server": "Docker/0.1.0 (linux)"} {
			if got := res.Header.Get(key); got != want {
				t.Errorf("%s: %s is %q", tc.path, key, got)
			}
		}
	}
}

func TestCreateBodies(t *testing.T) {
	f, socket := serve(t)
	c := raw(socket)
	for _, tc := range []struct {
		body string
		code int
		want string
	}{
		{`{"Image":"busybox"}`, 201, `"Warnings":["no network"]`},
		{`{"Image":"busybox","HostConfig":{"Privileged":true,"UsernsMode":"host","MaskedPaths":[],"ReadonlyPaths":[]}}`, 201, `"Id":`},
		{`{"Image":"busybox"} {}`, 400, `invalid JSON: unexpected content`},
		{`{"Image":`, 400, `invalid JSON: `},
		{`{"Image":"none"}`, 404, `No such image: none`},
		{`{"Image":"busybox","Cmd":"true","HostConfig":{"NetworkMode":"none"}}`, 201, `"Warnings":[]`},
		{`{}`, 400, `config cannot be empty`},
		{`{"Cmd":["a"],"Tty":true}`, 400, `no image specified`},
		{`{"Image":"busybox","WorkingDir":"rel"}`, 400, `needs to be an absolute path`},
		{`{"Image":"busybox","Env":["=x"]}`, 400, `invalid environment variable`},
		{`{"Image":"busybox","HostConfig":{"Mounts":[{"Type":"bind","Source":"/a","Target":"/b","BindOptions":{"IDMapping":{"Source":"odd"}}}]}}`, 400, `invalid id mapping`},
		{`{"Image":"busybox","HostConfig":{"Mounts":[{"Type":"bind","Source":"/a","Target":"/b","BindOptions":{"IDMapping":{"Source":"userns","User":"me"}}}]}}`, 400, `belongs to match-user`},
		{`{"Image":"busybox","HostConfig":{"Mounts":[{"Type":"bind","Source":"/a","Target":"/b","BindOptions":{"IDMapping":{"Odd":1}}}]}}`, 400, `IDMapping`},
		{`{"Image":"busybox","HostConfig":{"Mounts":[{"Type":"volume","Source":"vol","Target":"/b","VolumeOptions":{"Subpath":"../x"}}]}}`, 400, `Subpath`},
		{`{"Image":"busybox","HostConfig":{"VolumesFrom":["a:odd"]}}`, 400, `invalid mode`},
		{`{"Image":"busybox","Cmd":"true","HostConfig":{"KernelMemory":5}}`, 201, `a kernel memory limit is deprecated`},
		{`{"Image":"busybox","NetworkingConfig":{"EndpointsConfig":{"mine":{}}}}`, 400, `network mine not found`},
		{`{"Image":"busybox","HostConfig":{"MaskedPaths":[]}}`, 501, `MaskedPaths`},
		{`{"Image":"busybox","HostConfig":{"Privileged":true,"ReadonlyPaths":["/proc/x"]}}`, 501, `ReadonlyPaths`},
		{`{"Image":"busybox","HostConfig":{"UsernsMode":"auto","SecurityOpt":["userns=host"]}}`, 400, `asked for twice`},
	} {
		res, body := get(t, c, "POST", "/v1.44/containers/create", tc.body)
		if res.StatusCode != tc.code || !strings.Contains(body, tc.want) {
			t.Errorf("%s: %d %s", tc.body, res.StatusCode, body)
		}
	}
	if f.asked.Image != "busybox" || len(f.asked.Cmd) != 1 || f.asked.Cmd[0] != "true" {
		t.Errorf("a command that is one string: %+v", f.asked.Cmd)
	}
}

// dial sends a request and returns the connection after the answer's head.
func dial(t *testing.T, socket, request string) (*net.UnixConn, *bufio.Reader, string) {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(conn, request)
	br := bufio.NewReader(conn)
	var head strings.Builder
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			t.Fatalf("%q: %v", head.String(), err)
		}
		head.WriteString(line)
		if line == "\r\n" {
			return conn, br, head.String()
		}
	}
}

func makeOne(t *testing.T, socket, body string) string {
	t.Helper()
	_, text := get(t, raw(socket), "POST", "/containers/create", body)
	var made struct{ Id string }
	if err := json.Unmarshal([]byte(text), &made); err != nil || made.Id == "" {
		t.Fatalf("%s: %v", text, err)
	}
	return made.Id
}

// TestAttachBeforeStart keeps the order `docker run` relies on: 101 before the
// start, every byte of both streams framed, output after the input's end.
func TestAttachBeforeStart(t *testing.T) {
	_, socket := serve(t)
	id := makeOne(t, socket, `{"Image":"busybox","Cmd":["sh","-c","cat; echo err >&2"],"OpenStdin":true,"StdinOnce":true,"HostConfig":{"NetworkMode":"none"}}`)
	conn, br, head := dial(t, socket, "POST /v1.44/containers/"+id+"/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\n"+
		"Host: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\nearly ")
	want := "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
	if head != want {
		t.Errorf("head %q", head)
	}
	if res, body := get(t, raw(socket), "POST", "/containers/"+id+"/start", ""); res.StatusCode != 204 {
		t.Fatal(body)
	}
	if res, _ := get(t, raw(socket), "POST", "/containers/"+id+"/start", ""); res.StatusCode != 304 {
		t.Errorf("second start: %d", res.StatusCode)
	}
	io.WriteString(conn, "input\n")
	conn.CloseWrite()
	out, errs := unframe(t, br)
	if out != "early input\n" || errs != "err\n" {
		t.Errorf("%q %q", out, errs)
	}
}

func unframe(t *testing.T, r io.Reader) (out, errs string) {
	t.Helper()
	for {
		var head [8]byte
		if _, err := io.ReadFull(r, head[:]); err == io.EOF {
			return out, errs
		} else if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, binary.BigEndian.Uint32(head[4:]))
		if _, err := io.ReadFull(r, b); err != nil {
			t.Fatal(err)
		}
		if head[0] == 1 {
			out += string(b)
		} else {
			errs += string(b)
		}
	}
}

func TestAttachWithoutUpgrade(t *testing.T) {
	_, socket := serve(t)
	id := makeOne(t, socket, `{"Image":"busybox","Cmd":["echo","hi"]}`)
	_, br, head := dial(t, socket, "POST /v1.24/containers/"+id+"/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
	if head != "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n" {
		t.Errorf("head %q", head)
	}
	get(t, raw(socket), "POST", "/containers/"+id+"/start", "")
	if out, _ := unframe(t, br); out != "hi\n" {
		t.Errorf("%q", out)
	}
	_, br, _ = dial(t, socket, "POST /containers/"+id+"/attach?logs=1&stdout=1 HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n")
	if out, _ := unframe(t, br); out != "hi\n" {
		t.Errorf("logs: %q", out)
	}
}

// TestWaitAnswersAtOnce: the head comes when the waiter is registered, before
// the container has even started.
func TestWaitAnswersAtOnce(t *testing.T) {
	_, socket := serve(t)
	id := makeOne(t, socket, `{"Image":"busybox","Cmd":["sh","-c","exit 5"],"HostConfig":{"AutoRemove":true}}`)
	for _, condition := range []string{"next-exit", "removed"} {
		_, br, head := dial(t, socket, "POST /containers/"+id+"/wait?condition="+condition+" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
		if !strings.HasPrefix(head, "HTTP/1.1 200 OK") {
			t.Fatal(head)
		}
		defer func() {
			br.ReadString('\n') // the chunk's length
			if line, _ := br.ReadString('\n'); line != "{\"StatusCode\":5}\n" {
				t.Errorf("%s: %q", condition, line)
			}
		}()
	}
	get(t, raw(socket), "POST", "/containers/"+id+"/start", "")
}

// TestStopGoesOn: a client that hangs up has still asked for the stop.
func TestStopGoesOn(t *testing.T) {
	f, socket := serve(t)
	ctx, hangUp := context.WithCancel(context.Background())
	gone := make(chan struct{})
	f.stopping = func() { hangUp(); <-gone }
	f.stopDelay = 300 * time.Millisecond // for the door to see it
	id := makeOne(t, socket, `{"Image":"busybox","Cmd":["sleep","60"]}`)
	get(t, raw(socket), "POST", "/containers/"+id+"/start", "")
	req, _ := http.NewRequestWithContext(ctx, "POST", "http://x/containers/"+id+"/stop", nil)
	if _, err := raw(socket).Do(req); err == nil {
		t.Error("the stop has been answered")
	}
	close(gone)
	p, err := f.find(id)
	for range 3000 {
		if err == nil && p.record().State.Status == record.Exited {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("the stop was given up")
}

func TestExecRaw(t *testing.T) {
	_, socket := serve(t)
	c := raw(socket)
	id := makeOne(t, socket, `{"Image":"busybox","Cmd":["sleep","60"]}`)
	if res, body := get(t, c, "POST", "/containers/"+id+"/exec", `{"Cmd":["true"]}`); res.StatusCode != 409 {
		t.Errorf("exec in a created container: %d %s", res.StatusCode, body)
	}
	get(t, c, "POST", "/containers/"+id+"/start", "")
	start := func(create string) (string, string) {
		_, body := get(t, c, "POST", "/containers/"+id+"/exec", create)
		var made struct{ Id string }
		json.Unmarshal([]byte(body), &made)
		conn, br, _ := dial(t, socket, "POST /exec/"+made.Id+"/start HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n"+
			"Content-Type: application/json\r\nContent-Length: 30\r\n\r\n{\"Detach\":false,\"Tty\":false}  input\n")
		conn.CloseWrite()
		out, errs := unframe(t, br)
		_, state := get(t, c, "GET", "/exec/"+made.Id+"/json", "")
		if res, _ := get(t, c, "POST", "/exec/"+made.Id+"/start", ""); res.StatusCode != 409 {
			t.Errorf("a second start: %d", res.StatusCode)
		}
		return out + errs, state
	}
	if out, state := start(`{"AttachStdin":true,"AttachStdout":true,"AttachStderr":true,"Cmd":["sh","-c","cat; exit 9"]}`); out != "input\n" || !strings.Contains(state, `"ExitCode":9`) {
		t.Errorf("%q %s", out, state)
	}
	if out, state := start(`{"AttachStdout":true,"Cmd":["no-such"]}`); !strings.HasSuffix(out, "executable file not found in $PATH\r\n") || !strings.Contains(state, `"ExitCode":127`) {
		t.Errorf("%q %s", out, state)
	}
	if res, _ := get(t, c, "GET", "/exec/nope/json", ""); res.StatusCode != 404 {
		t.Errorf("unknown exec: %d", res.StatusCode)
	}
}

// TestHTTP2: prior-knowledge HTTP/2 works for everything but taking over a
// connection.
func TestHTTP2(t *testing.T) {
	_, socket := serve(t)
	tr := &http.Transport{Protocols: new(http.Protocols), DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr}
	res, body := get(t, c, "GET", "/_ping", "")
	if res.ProtoMajor != 2 || body != "OK" {
		t.Errorf("HTTP/%d %q", res.ProtoMajor, body)
	}
	id := makeOne(t, socket, `{"Image":"busybox"}`)
	if res, body := get(t, c, "POST", "/containers/"+id+"/attach?stream=1&stdout=1", ""); res.StatusCode != 400 || !strings.Contains(body, "HTTP/1.1") {
		t.Errorf("attach: %d %s", res.StatusCode, body)
	}
}

// TestLegacyFields: what older clients index without asking.
func TestLegacyFields(t *testing.T) {
	_, socket := serve(t)
	c := raw(socket)
	id := makeOne(t, socket, `{"Image":"busybox","HostConfig":{"Binds":["/tmp:/t:ro"],"Tmpfs":{"/u":"size=1m"}}}`)
	_, body := get(t, c, "GET", "/v1.41/containers/"+id+"/json", "")
	for _, want := range []string{`"IPAddress":""`, `"Ports":{}`, `"GraphDriver":{`, `"StartedAt":"0001-01-01T00:00:00Z"`, `"Binds":["/tmp:/t:ro"]`,
		`"Mounts":[{"Type":"bind"`, `"UserNamespace":{`, `"Networks":{"bridge":`} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in %s", want, body)
		}
	}
	_, body = get(t, c, "GET", "/v1.41/images/busybox/json", "")
	for _, want := range []string{`"VirtualSize":4194304`, `"Hostname":""`, `"Entrypoint":null`, `"Labels":{"from":"test"}`, `"ContainerConfig":{`} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in %s", want, body)
		}
	}
	if _, body = get(t, c, "GET", "/v1.51/images/busybox/json", ""); strings.Contains(body, "VirtualSize") || strings.Contains(body, "Hostname") || strings.Contains(body, "ContainerConfig") {
		t.Errorf("1.51 has fields of older versions: %s", body)
	}
	_, body = get(t, c, "GET", "/events?since=1&until="+decimal(time.Now().Unix()+1), "")
	if !strings.Contains(body, `{"status":"create","id":"`+id+`","from":"busybox","Type":"container","Action":"create"`) {
		t.Errorf("event: %s", body)
	}
	_, body = get(t, c, "GET", "/system/df", "")
	for _, want := range []string{`"LayersSize":4194304`, `"UsageData":{"RefCount":1,"Size":7}`, `"BuildCache":[]`, `"Containers":[{`} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in %s", want, body)
		}
	}
}
