package wire

// The verbs about volumes.
const (
	VolumeCreate  Verb = 112 + iota // (ask.CreateVolume) → record.Volume
	VolumeList                      // (ListCall) → []record.Volume
	VolumeInspect                   // (Name) → record.Volume
	VolumeRemove                    // (RemoveCall)
	VolumeSize                      // (Name) → int64: bytes
)
