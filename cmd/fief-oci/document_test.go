package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestDecodeKnowsAllFields fills every field of the specification with
// something, and wants what is decoded to be that.
func TestDecodeKnowsAllFields(t *testing.T) {
	var want specs.Spec
	fillValue(reflect.ValueOf(&want).Elem())
	raw, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got specs.Spec
	var d document // not decode, which would fall back
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	d.fill(&got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func fillValue(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillValue(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Tag.Get("json") != "-" {
				fillValue(v.Field(i))
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fillValue(v.Index(0))
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fillValue(key)
		fillValue(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString("some")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(1)
	case reflect.Interface:
		v.Set(reflect.ValueOf("any"))
	default:
		if v.CanInt() {
			v.SetInt(7)
		} else {
			v.SetUint(7)
		}
	}
}

// TestDecodeNamesTheField: an error tells which field of which section.
func TestDecodeNamesTheField(t *testing.T) {
	err := decode([]byte(`{"linux":{"resources":{"memory":{"limit":"much"}}}}`), &specs.Spec{})
	var wrong *json.UnmarshalTypeError
	if !asType(err, &wrong) || wrong.Field != "linux.resources.memory.limit" {
		t.Errorf("%v", err)
	}
}

func asType(err error, target **json.UnmarshalTypeError) bool {
	e, ok := err.(*json.UnmarshalTypeError)
	*target = e
	return ok
}

// FuzzDecode: what one reader takes the other takes, with the same result.
func FuzzDecode(f *testing.F) {
	for _, name := range []string{"../../internal/launch/testdata/*.json"} {
		found, _ := filepath.Glob(name)
		for _, file := range found {
			if raw, err := os.ReadFile(file); err == nil {
				f.Add(raw)
			}
		}
	}
	for _, s := range []string{`{}`, `null`, `{"linux":null,"hooks":null}`, `{"linux":{"seccomp":null,"devices":[],"timeOffsets":{}}}`,
		`{"process":{"ioPriority":{"class":"x"}},"PROCESS":{"cwd":"/"}}`, `{"hooks":{"prestart":[{}]},"hooks":{"poststop":[{}]}}`, `[]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var want, got specs.Spec
		wantErr, err := json.Unmarshal(raw, &want), decode(raw, &got)
		if (wantErr == nil) != (err == nil) {
			t.Fatalf("%v, not %v", err, wantErr)
		}
		if err == nil && !reflect.DeepEqual(want, got) {
			t.Fatal(cmp.Diff(want, got))
		}
	})
}
