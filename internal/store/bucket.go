package store

import (
	"encoding/json"
	"maps"
	"slices"

	"fief/internal/words/fault"

	"go.etcd.io/bbolt"
)

// Bucket is a named set of values, in JSON, under string keys of 1 to 32768
// bytes. A bucket exists from its first value on; looking costs nothing.
type Bucket struct {
	db   *DB
	name string
}

// Bucket returns the bucket of that name.
func (db *DB) Bucket(name string) *Bucket { return &Bucket{db, name} }

// Put stores v under key and returns when it is on disk. On an error the
// former value is still there.
func (b *Bucket) Put(key string, v any) error {
	o, err := b.op(key, v)
	if err != nil {
		return err
	}
	return b.db.queue.now(o)
}

// PutAll stores, or deletes where the value is nil, all of changes at once:
// after a crash all of them are there or none.
func (b *Bucket) PutAll(changes map[string]any) error {
	var ops []op
	for _, key := range slices.Sorted(maps.Keys(changes)) {
		o, err := b.op(key, changes[key])
		if err != nil {
			return err
		}
		ops = append(ops, o)
	}
	if len(ops) == 0 {
		return nil
	}
	return b.db.queue.now(ops...)
}

// PutSoon stores v (nil: deletes) under key without waiting: readers see it at once, the disk
// within a twentieth of a second. A write that fails is tried again with the
// next one, and told by Flush.
func (b *Bucket) PutSoon(key string, v any) error {
	o, err := b.op(key, v)
	if err != nil {
		return err
	}
	return b.db.queue.later(o)
}

// Delete removes key and returns when that is on disk. A key that is not there
// is no error.
func (b *Bucket) Delete(key string) error {
	o, err := b.op(key, nil)
	if err != nil {
		return err
	}
	return b.db.queue.now(o)
}

func (b *Bucket) op(key string, v any) (op, error) {
	if key == "" || len(key) > bbolt.MaxKeySize {
		return op{}, fault.New(fault.Internal, "store in "+b.name, "", "a key must have 1 to 32768 bytes", "")
	}
	if v == nil {
		return op{bucket: b.name, key: key}, nil
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return op{}, fault.Wrap(fault.Internal, "store in "+b.name, key, err, "")
	}
	return op{b.name, key, raw}, nil
}

// Get fills v from key's value; false when there is none, v is then untouched.
// A value that is not v's JSON is Corrupt.
func (b *Bucket) Get(key string, v any) (bool, error) {
	raw, ok := b.db.queue.pending(place{b.name, key})
	if !ok {
		raw = b.read(key)
	}
	if raw == nil {
		return false, nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return false, fault.Wrap(fault.Corrupt, "read from "+b.name, key, err, "")
	}
	return true, nil
}

func (b *Bucket) read(key string) (raw []byte) {
	b.db.view(func(tx *bbolt.Tx) error { // fails only when closed or on a disk that fails: nothing is found then
		if bucket := tx.Bucket([]byte(b.name)); bucket != nil {
			raw = slices.Clone(bucket.Get([]byte(key)))
		}
		return nil
	})
	return raw
}

// Each calls f with every key, in order, and its value as stored, until f
// fails, and returns that error. f may call the bucket: it sees the bucket as
// it was when Each was called.
func (b *Bucket) Each(f func(key string, raw []byte) error) error {
	all := b.db.queue.pendingIn(b.name) // before the file: what is committed meanwhile is then in both
	err := b.db.view(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket([]byte(b.name))
		if bucket == nil {
			return nil
		}
		return bucket.ForEach(func(k, v []byte) error {
			if _, newer := all[string(k)]; !newer {
				all[string(k)] = slices.Clone(v)
			}
			return nil
		})
	})
	if err != nil {
		return fault.Wrap(classOf(err), "list", b.name, err, "")
	}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if all[key] == nil {
			continue // about to be deleted
		}
		if err := f(key, all[key]); err != nil {
			return err
		}
	}
	return nil
}
