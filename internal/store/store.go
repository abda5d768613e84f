// Package store keeps the daemon's state: named buckets of JSON values in one
// bbolt file. Values that clients were told about are durable before the call
// returns (Put, PutAll, Delete); what may be lost in a crash goes by PutSoon,
// which waits for nothing. All writes of a moment share one commit, so that
// many callers at once cost one fdatasync.
package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"fief/internal/words/failpoint"
	"fief/internal/words/fault"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Schema is the version of the layout this build writes. A file of a newer
// schema is refused; older ones are brought up at Open.
const Schema = 1

const (
	metaBucket = "meta"
	schemaKey  = "schema"
)

// DB is an open state file. It is safe for use by several goroutines.
type DB struct {
	path    string
	bolt    *bbolt.DB
	queue   *queue
	reserve Reserve
}

// Open opens or makes the state file at path, mode 0600. A file that another
// process has open is a Conflict (flock(2) is released by the kernel, so a
// killed daemon never leaves a stale lock); a file of a newer build is
// Unsupported; one that does not verify is Corrupt. Nothing is written in any
// of these cases.
func Open(path string) (*DB, error) {
	bolt, err := openBolt(path)
	if err != nil {
		return nil, classify(path, err)
	}
	if err := checkSchema(bolt, path); err != nil {
		bolt.Close()
		return nil, err
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		bolt.Close()
		return nil, classify(path, err)
	}
	db := &DB{path: path, bolt: bolt, reserve: Reserve{Path: path + ".reserve"}}
	db.reserve.Keep()
	db.queue = newQueue(db.commit)
	return db, nil
}

// patience is how long a daemon that is about to end may hold the file.
const patience = 100 * time.Millisecond

// openBolt turns the panics of bbolt about damaged pages into errors: the file
// is ours, but the disk below it is not. Those that cannot be caught are
// prevented (intact).
func openBolt(path string) (db *bbolt.DB, err error) {
	var file *os.File
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", bolterrors.ErrInvalid, p)
		}
		if err != nil && file != nil {
			syscall.Flock(int(file.Fd()), syscall.LOCK_UN) // bbolt leaves it mapped after a panic, and so open
			file.Close()
		}
	}()
	return bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: patience,
		OpenFile: func(path string, flags int, mode os.FileMode) (_ *os.File, err error) {
			file, err = openIntact(path, flags, mode)
			return file, err
		},
		NoFreelistSync: true, // rebuilt at open: the file is small, commits are on the path of a pull
		FreelistType:   bbolt.FreelistMapType,
	})
}

// openIntact opens and locks the file, and looks it through. bbolt locks the
// same open file once more (flock(2): that is no conflict).
func openIntact(path string, flags int, mode os.FileMode) (*os.File, error) {
	f, err := os.OpenFile(path, flags, mode)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			break
		}
		if time.Now().After(end) {
			err = bolterrors.ErrTimeout
			break
		}
	}
	if err == nil {
		err = intact(f)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func classify(path string, err error) error {
	const op = "open state file"
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return fault.New(fault.Conflict, op, path, "it is in use by another daemon",
			"stop the other fiefd, or give this one a data root of its own")
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return fault.Wrap(fault.Corrupt, op, path, err, "restore it from a backup, or move it away to start with an empty state")
	}
	return fault.Wrap(classOf(err), op, path, err, "")
}

func classOf(err error) fault.Class {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fault.Exhausted
	case errors.Is(err, os.ErrPermission):
		return fault.Denied
	case errors.Is(err, os.ErrNotExist):
		return fault.NotFound
	case errors.Is(err, bolterrors.ErrInvalid):
		return fault.Corrupt
	}
	return fault.Internal
}

func checkSchema(bolt *bbolt.DB, path string) error {
	var found int
	db := &DB{path: path, bolt: bolt}
	err := db.view(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(metaBucket))
		if b == nil {
			return nil
		}
		return json.Unmarshal(b.Get([]byte(schemaKey)), &found)
	})
	if err != nil {
		return fault.Wrap(fault.Corrupt, "read the schema of", path, err, "restore it from a backup")
	}
	if found > Schema {
		return fault.New(fault.Unsupported, "open state file", path,
			fmt.Sprintf("it has schema %d, this build knows %d", found, Schema), "run the newer fiefd again")
	}
	if found == Schema {
		return nil
	}
	err = db.apply([]op{{metaBucket, schemaKey, fmt.Append(nil, Schema)}})
	return fault.Wrap(classOf(err), "write the schema of", path, err, "")
}

// syncDir makes the name of a new file durable; bbolt syncs only the file.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// commit applies ops in order in one transaction: all are on disk, or none. On
// a full file system deletions still work, from the reserve.
func (db *DB) commit(ops []op) error {
	failpoint.Hit("state-writing")
	err := db.apply(ops)
	failpoint.Hit("state-written")
	if classOf(err) == fault.Exhausted && deletions(ops) && db.reserve.Spend() {
		err = db.apply(ops)
	}
	if err == nil && deletions(ops) {
		db.reserve.Keep()
	}
	return fault.Wrap(classOf(err), "write state file", db.path, err, "free some space below the data root")
}

func deletions(ops []op) bool {
	return !slices.ContainsFunc(ops, func(o op) bool { return o.value != nil })
}

func (db *DB) apply(ops []op) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer caught(&err)
	return db.bolt.Update(func(tx *bbolt.Tx) error {
		for _, o := range ops {
			b, err := tx.CreateBucketIfNotExists([]byte(o.bucket))
			if err != nil {
				return err
			}
			if o.value == nil {
				err = b.Delete([]byte(o.key))
			} else {
				err = b.Put([]byte(o.key), o.value)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Flush returns when everything that PutSoon took before it is on disk.
func (db *DB) Flush() error { return db.queue.flush() }

// Close flushes and closes. Calls made after it fail; the file stays locked
// until it returns.
func (db *DB) Close() error {
	err := db.queue.stop()
	if closeErr := db.bolt.Close(); err == nil {
		err = closeErr
	}
	return err
}
