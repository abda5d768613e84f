package native

import (
	"os"

	"fief/internal/door/native/wire"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
)

// images answers the verbs about images.
func (k *call) images(v wire.Verb) (any, error) {
	switch v {
	case wire.Pull:
		p, err := decode[ask.PullImage](k)
		if err != nil {
			return nil, err
		}
		return k.engine.Pull(k.ctx, p, k.progress)
	case wire.Images:
		return k.engine.Images(k.ctx)
	case wire.Load:
		return k.load()
	case wire.Import:
		i, err := decode[ask.ImportImage](k)
		if err != nil {
			return nil, err
		}
		if i.Source != "" {
			return k.engine.Import(k.ctx, i, nil)
		}
		f, err := k.upload()
		if err != nil {
			return nil, err
		}
		return k.engine.Import(k.ctx, i, f)
	case wire.Save:
		return nil, k.save()
	case wire.Tag:
		t, err := decode[wire.RenameCall](k)
		if err != nil {
			return nil, err
		}
		return nil, k.engine.Tag(k.lasting(), t.Old, t.New)
	case wire.RemoveImage:
		r, err := decode[wire.RemoveCall](k)
		if err != nil {
			return nil, err
		}
		return k.engine.RemoveImage(k.lasting(), r.Name, r.Force)
	}
	if v == wire.LoadLayout {
		l, err := decode[wire.LayoutCall](k)
		if err != nil {
			return nil, err
		}
		return k.engine.LoadLayout(k.ctx, l.LoadImages, l.Name, k.progress)
	}
	i, err := decode[wire.ImageCall](k)
	if err != nil {
		return nil, err
	}
	return k.engine.ImageFor(k.ctx, i.Name, i.Platform)
}

// load reads the archive that came along.
func (k *call) load() (any, error) {
	want, err := decode[ask.LoadImages](k)
	if err != nil {
		return nil, err
	}
	f, err := k.upload()
	if err != nil {
		return nil, err
	}
	return k.engine.Load(k.ctx, want, f, k.progress)
}

// save writes an archive to the descriptor that came along.
func (k *call) save() error {
	want, err := decode[ask.SaveImages](k)
	if err != nil {
		return err
	}
	f, err := k.upload()
	if err != nil {
		return err
	}
	return k.engine.Save(k.ctx, want, f)
}

// upload is the one file that came with the request.
func (k *call) upload() (*os.File, error) {
	if len(k.files) != 1 {
		return nil, fault.New(fault.Invalid, "use archive", "", "no descriptor came with the request", "")
	}
	return k.files[0], nil
}
