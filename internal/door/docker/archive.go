package docker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// copier copies files into and out of containers.
type copier interface {
	StatPath(ctx context.Context, id, path string) (record.PathStat, error)
	ReadPath(ctx context.Context, id, path string) (record.PathStat, io.ReadCloser, error)
	WritePath(ctx context.Context, id string, c ask.CopyIn, r io.Reader) error
}

func (d *door) archiveRoutes() []route {
	return []route{
		on("HEAD /containers/*/archive", d.archiveStat),
		on("GET /containers/*/archive", d.archiveGet),
		on("PUT /containers/*/archive", d.archivePut),
	}
}

func (r *request) archivePath() (string, error) {
	if path := r.URL.Query().Get("path"); path != "" {
		return path, nil
	}
	return "", invalid("bad parameter: 'path' cannot be empty")
}

// pathHeader tells what the path is; clients read it before the archive.
func pathHeader(w http.ResponseWriter, stat record.PathStat) error {
	text, err := json.Marshal(stat)
	if err != nil {
		return fault.Wrap(fault.Internal, "encode", "path", err, "")
	}
	w.Header().Set("X-Docker-Container-Path-Stat", base64.StdEncoding.EncodeToString(text))
	return nil
}

func (d *door) archiveStat(w http.ResponseWriter, r *request) error {
	path, err := r.archivePath()
	if err != nil {
		return err
	}
	stat, err := d.engine.StatPath(r.Context(), r.name, path)
	if err != nil {
		return err
	}
	if err := pathHeader(w, stat); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (d *door) archiveGet(w http.ResponseWriter, r *request) error {
	path, err := r.archivePath()
	if err != nil {
		return err
	}
	stat, content, err := d.engine.ReadPath(r.Context(), r.name, path)
	if err != nil {
		return err
	}
	defer content.Close()
	if err := pathHeader(w, stat); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-tar")
	n, err := io.Copy(w, content)
	if err != nil && n > 0 {
		// The status is sent; a connection cut off tells the client that the
		// archive is not whole.
		panic(http.ErrAbortHandler)
	}
	return err
}

func (d *door) archivePut(w http.ResponseWriter, r *request) error {
	path, err := r.archivePath()
	if err != nil {
		return err
	}
	query := r.URL.Query()
	c := ask.CopyIn{Path: path, KeepKinds: isTrue(query.Get("noOverwriteDirNonDir")), AsUser: isTrue(query.Get("copyUIDGID"))}
	return d.engine.WritePath(r.Context(), r.name, c, r.Body)
}
