package docker

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// Stats tells samples a millisecond apart, each with more processor time, three at
// least.
func (f *fake) Stats(ctx context.Context, id string, stream bool, each func(record.Stats) error) error {
	p, err := f.find(id)
	if err != nil {
		return err
	}
	for n := uint64(1); ; n++ {
		s := record.Stats{ID: p.rec.ID, Name: "n", Read: time.Unix(int64(n), 0), Online: 2, SystemCPU: 100 * n,
			CPU: record.CPUStats{Total: 10 * n}, Memory: record.MemoryStats{Usage: 7, Limit: 9, Details: map[string]uint64{"inactive_file": 3}},
			Pids: record.PidsStats{Current: 4}, Blkio: []record.BlkioStat{{Major: 8, Op: "read", Bytes: 5, Count: 6}}}
		if err := each(s); err != nil || !stream || ctx.Err() != nil && n >= 3 {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

func (f *fake) UpdateResources(_ context.Context, id string, r record.Resources) ([]string, error) {
	p, err := f.find(id)
	if err == nil {
		p.rec.Resources = r
	}
	return []string{"short"}, err
}

func (f *fake) Pause(_ context.Context, id string) error   { return f.setPaused(id, true) }
func (f *fake) Unpause(_ context.Context, id string) error { return f.setPaused(id, false) }

func (f *fake) setPaused(id string, on bool) error {
	p, err := f.find(id)
	if err == nil && p.rec.State.Paused == on {
		err = fault.Say(fault.Conflict, "Container "+id+" is not paused")
	}
	if err == nil {
		p.rec.State.Paused = on
	}
	return err
}

// everyResource is what a client may send; each field must come back in inspect.
const everyResource = `{"CpuShares":512,"Memory":67108864,"NanoCpus":500000000,"CgroupParent":"/x","BlkioWeight":300,
"BlkioWeightDevice":[{"Path":"/dev/a","Weight":400}],"BlkioDeviceReadBps":[{"Path":"/dev/a","Rate":1}],"BlkioDeviceWriteBps":[{"Path":"/dev/a","Rate":2}],
"BlkioDeviceReadIOps":[{"Path":"/dev/a","Rate":3}],"BlkioDeviceWriteIOps":[{"Path":"/dev/a","Rate":4}],"CpuPeriod":1000,"CpuQuota":2000,"CpuRealtimePeriod":3,
"CpuRealtimeRuntime":2,"CpusetCpus":"0","CpusetMems":"0","Devices":[{"PathOnHost":"/dev/null","PathInContainer":"/dev/x","CgroupPermissions":"r"}],
"DeviceCgroupRules":["c 1:* rwm"],"DeviceRequests":[{"Driver":"cdi","Count":0,"DeviceIDs":["a.com/b=c"],"Capabilities":null,"Options":null}],"MemoryReservation":7000000,"MemorySwap":-1,"MemorySwappiness":60,"OomKillDisable":true,"PidsLimit":9,"OomScoreAdj":-5,
"Sysctls":{"net.ipv4.ip_forward":"1"}}`

func TestResourcesSurvive(t *testing.T) {
	f := newFake()
	h := New(f, Options{})
	send := func(method, path, body string) (int, string) {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	code, text := send("POST", "/v1.51/containers/create?name=res", `{"Image":"busybox","HostConfig":`+everyResource+`}`)
	if code != http.StatusCreated {
		t.Fatal(code, text)
	}
	r := f.asked.Resources
	v := reflect.ValueOf(r)
	for i := range v.NumField() {
		if name := v.Type().Field(i).Name; v.Field(i).IsZero() {
			t.Errorf("%s was lost", name)
		}
	}
	if f.asked.Sysctls["net.ipv4.ip_forward"] != "1" {
		t.Error("sysctls were lost")
	}
	var sent, shown map[string]any
	raw, err := json.Marshal(hostConfigOf(record.Container{Resources: r, Sysctls: f.asked.Sysctls}))
	if err != nil || json.Unmarshal(raw, &shown) != nil || json.Unmarshal([]byte(everyResource), &sent) != nil {
		t.Fatal(err)
	}
	for name, want := range sent {
		if !reflect.DeepEqual(shown[name], want) {
			t.Errorf("%s: sent %v, shown %v", name, want, shown[name])
		}
	}
	for body, want := range map[string]string{
		`{"DeviceCgroupRules":["x 1:1 r"]}`:       "invalid device cgroup rule format: 'x 1:1 r'",
		`{"Devices":[{"PathOnHost":"dev/null"}]}`: "invalid device mapping",
		`{"DeviceRequests":[{"Driver":"odd"}]}`:   `could not select device driver`,
		`{"CpuCount":1}`:                          "CpuCount",
	} {
		if code, text := send("POST", "/v1.51/containers/create", `{"Image":"busybox","HostConfig":`+body+`}`); code < 400 || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s", body, code, text)
		}
	}
	if code, text := send("POST", "/v1.51/containers/res/update", `{"Memory":7000000,"RestartPolicy":{"Name":"sometimes"}}`); code != 400 || !strings.Contains(text, "sometimes") {
		t.Errorf("no restart policy: %d %s", code, text)
	}
	if code, text := send("POST", "/v1.51/containers/res/update", `{"Memory":7000000,"RestartPolicy":{"Name":"always"}}`); code != 200 {
		t.Errorf("limits with a restart policy: %d %s", code, text)
	}
	code, text = send("POST", "/v1.51/containers/res/update", `{"Memory":7000000}`)
	if code != 200 || text != `{"Warnings":["short"]}`+"\n" {
		t.Errorf("update: %d %s", code, text)
	}
}

// TestStatsSamples: one sample has the one before it in it, and a stream goes on.
func TestStatsSamples(t *testing.T) {
	f := newFake()
	h := New(f, Options{})
	r := httptest.NewRequest("POST", "/v1.51/containers/create?name=st", strings.NewReader(`{"Image":"busybox"}`))
	r.Header.Set("Content-Type", "application/json")
	h.ServeHTTP(httptest.NewRecorder(), r)
	for query, before := range map[string]uint64{"stream=0": 10, "stream=false&one-shot=true": 0} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/v1.51/containers/st/stats?"+query, nil))
		var s statsResponse
		if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil {
			t.Fatalf("%s: %v: %s", query, err, w.Body)
		}
		if s.PreCPUStats.CPUUsage.TotalUsage != before || s.CPUStats.CPUUsage.TotalUsage == 0 || s.Name != "/n" || s.MemoryStats.Stats["inactive_file"] != 3 ||
			s.PidsStats.Current != 4 || len(s.BlkioStats.IoServiceBytesRecursive) != 1 || s.CPUStats.OnlineCPUs != 2 {
			t.Errorf("%s: %s", query, w.Body)
		}
	}
	ctx, stop := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer stop()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/v1.51/containers/st/stats", nil))
	if n := strings.Count(w.Body.String(), `"read"`); n < 3 {
		t.Errorf("%d samples of a stream", n)
	}
}
