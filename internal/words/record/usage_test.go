package record

import "testing"

func TestMeasure(t *testing.T) {
	layer := func(id string, size int64) Layer { return Layer{DiffID: id, Size: size} }
	images := []Image{
		{ID: "a", Layers: []Layer{layer("base", 100), layer("x", 10), layer("x", 10)}},
		{ID: "b", Layers: []Layer{layer("base", 100), layer("y", 1)}},
		{ID: "empty"},
	}
	u := Measure(images)
	if u.Layers != 111 || u.Shared["a"] != 100 || u.Shared["b"] != 100 || u.Shared["empty"] != 0 {
		t.Errorf("%+v", u)
	}
	if u := Measure(images[:1]); u.Layers != 110 || u.Shared["a"] != 0 {
		t.Errorf("%+v", u)
	}
	if n := images[0].Freed([]Removed{{Untagged: "a:1"}, {Deleted: "a"}, {Deleted: "x"}}); n != 10 {
		t.Error(n)
	}
}
