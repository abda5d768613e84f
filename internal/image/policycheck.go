package image

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"fief/internal/image/remote"
	"fief/internal/words/fault"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// How cosign stores signatures: as layers of a manifest with the tag
// sha256-<digest>.sig in the image's repository (sigstore/cosign
// specs/SIGNATURE_SPEC.md, "Tag-based Discovery" and "OCI Image Manifest V1").
const (
	simpleSigning  = "application/vnd.dev.cosign.simplesigning.v1+json"
	signatureKey   = "dev.cosignproject.cosign/signature"
	signatureType  = "cosign container image signature"
	maxPayload     = 64 << 10
	maxSignatures  = 64
	maxKeySigBytes = 4 << 10
)

// check refuses an image that a requirement wants signed and no key of it has.
// desc is what the image's name stands for at the registry: all that is pulled
// afterwards is pinned by its digest.
func (p Policy) check(ctx context.Context, repo *remote.Repo, named reference.Named, desc ocispec.Descriptor) error {
	repository := repositoryOf(named)
	var open []requirement
	for _, r := range p {
		if matches(r.pattern, repository) {
			open = append(open, r)
		}
	}
	if len(open) == 0 {
		return nil
	}
	signatures, err := signaturesOf(ctx, repo, desc.Digest)
	if err != nil {
		return open[0].refuse(named, desc.Digest, err)
	}
	var why []string
	for _, s := range signatures {
		payload, err := repo.Small(ctx, s, maxPayload)
		if err != nil {
			return open[0].refuse(named, desc.Digest, err)
		}
		open = slices.DeleteFunc(open, func(r requirement) bool {
			err := r.satisfied(payload, s.Annotations[signatureKey], repository, desc.Digest)
			if err != nil && !slices.Contains(why, err.Error()) {
				why = append(why, err.Error())
			}
			return err == nil
		})
		if len(open) == 0 {
			return nil
		}
	}
	return open[0].refuse(named, desc.Digest, fmt.Errorf("%s", strings.Join(why, "; ")))
}

// refuse names the policy and the reason.
func (r requirement) refuse(named reference.Named, d digest.Digest, why error) error {
	class := fault.Denied
	if c := fault.ClassOf(why); c == fault.Unavailable || c == fault.Canceled {
		class = c // the same pull may be allowed later
	}
	names := make([]string, len(r.keys))
	for i, k := range r.keys {
		names[i] = k.name
	}
	hint := fmt.Sprintf("sign %s@%s with one of the keys (%s), or change [policy] in fief.toml",
		reference.FamiliarName(named), d, strings.Join(names, ", "))
	return fault.Wrap(class, "pull", reference.FamiliarString(named), fmt.Errorf("the policy for %s requires a signature: %w", r.pattern, why), hint)
}

// signaturesOf lists what claims to be signatures of a manifest.
func signaturesOf(ctx context.Context, repo *remote.Repo, d digest.Digest) ([]ocispec.Descriptor, error) {
	_, raw, err := repo.Manifest(ctx, "sha256-"+d.Encoded()+".sig")
	if fault.Is(err, fault.NotFound) {
		return nil, fmt.Errorf("%s has none", d)
	}
	if err != nil {
		return nil, err
	}
	return readSignatures(raw)
}

func readSignatures(raw []byte) ([]ocispec.Descriptor, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("its signatures cannot be read: %w", err)
	}
	var out []ocispec.Descriptor
	for _, l := range m.Layers {
		if l.MediaType != simpleSigning || l.Annotations[signatureKey] == "" {
			continue // attestations and other formats
		}
		if err := checkDescriptor(l, maxPayload); err != nil {
			return nil, err
		}
		if out = append(out, l); len(out) > maxSignatures {
			return nil, fmt.Errorf("it has more than %d", maxSignatures)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("what is stored as its signature holds none that is known here")
	}
	return out, nil
}

// claim is what a payload says, in the simple signing format
// (containers-signature(5), "JSON data format").
type claim struct {
	Critical struct {
		Identity struct {
			Reference string `json:"docker-reference"`
		} `json:"identity"`
		Image struct {
			Digest string `json:"docker-manifest-digest"`
		} `json:"image"`
		Type string `json:"type"`
	} `json:"critical"`
}

// satisfied looks at one signature: first whether a key made it, then whether
// it is about this image. Nothing in a payload is believed, or told, before.
func (r requirement) satisfied(payload []byte, signature, repository string, d digest.Digest) error {
	sig, err := base64.StdEncoding.DecodeString(signature)
	if err != nil || len(sig) > maxKeySigBytes {
		return fmt.Errorf("a signature is no base64")
	}
	if !slices.ContainsFunc(r.keys, func(k publicKey) bool { return k.verifies(payload, sig) }) {
		return fmt.Errorf("a signature is of another key")
	}
	var c claim
	if err := json.Unmarshal(payload, &c); err != nil {
		return fmt.Errorf("a signed payload cannot be read")
	}
	if c.Critical.Type != signatureType {
		return fmt.Errorf("a signature is for something of type %q", short(c.Critical.Type))
	}
	if c.Critical.Image.Digest != d.String() {
		return fmt.Errorf("a signature is for another image, %s", short(c.Critical.Image.Digest))
	}
	return r.signedFor(c.Critical.Identity.Reference, repository)
}

// signedFor compares the name that was signed. cosign ignores it; but a key
// that signs for several repositories must not let an old image of one be
// served as another (sigstore pkg/signature/payload: "almost all consumers
// must verify").
func (r requirement) signedFor(signed, repository string) error {
	named, err := reference.ParseNormalizedNamed(signed)
	if err != nil {
		return fmt.Errorf("a signature is for no valid name, %q", short(signed))
	}
	want := r.signedAs
	if want == "" {
		want = repository
	}
	if got := repositoryOf(named); !matches(want, got) {
		return fmt.Errorf("a signature is for %s, not for %s", got, want)
	}
	return nil
}
