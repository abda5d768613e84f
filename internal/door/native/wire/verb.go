package wire

// Verb names a call. Numbers are given once and never reused.
type Verb byte

// The verbs. Run, RunArgs, Exec and ExecArgs take the descriptors stdin,
// stdout, stderr and the daemon's end of a liveness socket pair, and answer
// Started and Exit; Load, LoadLayout and Import take the file to read. The
// types in brackets are those of body and result, all JSON but Launch's.
const (
	RunArgs       Verb = 1 + iota // (Launch)
	ExecArgs                      // (Launch)
	Run                           // (RunCall)
	Exec                          // (ExecCall)
	Create                        // (Container) → CreatedReply
	Start                         // (Name)
	Attach                        // (AttachCall): with descriptors
	Wait                          // (WaitCall) → record.Exit
	WaitExec                      // (Name) → record.Exit
	Stop                          // (StopCall)
	Kill                          // (KillCall)
	Restart                       // (StopCall)
	Remove                        // (RemoveCall)
	Rename                        // (RenameCall)
	List                          // (ListCall) → []record.Container
	Inspect                       // (Name) → record.Container
	Size                          // (Name) → SizeReply
	Logs                          // (LogsCall): Data
	Top                           // (TopCall) → record.Top
	Plan                          // (Container) → string
	Pull                          // (ask.PullImage): Progress → record.Image
	Load                          // (ask.LoadImages): Progress → []record.Image
	LoadLayout                    // (LayoutCall): Progress → []record.Image
	Import                        // (ask.ImportImage): Progress → record.Image; no file where it has a Source
	Images                        // → []record.Image
	Image                         // (ImageCall) → record.Image
	Tag                           // (RenameCall)
	RemoveImage                   // (RemoveCall) → []record.Removed
	Info                          // → record.Info
	Events                        // (ask.Events): Event
	StartAttached                 // (AttachCall): with descriptors; attaches, starts, answers Started and Exit
	IDs                           // Data: ranges, see Ranges → record.IDs without them
	Who                           // (ask.Who) → record.Who
	Update                        // (UpdateCall) → record.Container
	Save                          // (ask.SaveImages): with the descriptor to write to
	Commit                        // (ask.Commit) → record.Image
	Export                        // (Name): with the descriptor to write to
	Changes                       // (Name): Data: changes, see ReadChanges
	Verify                        // (Look): Progress → record.Verification
	Push                          // (ask.PushImage): Progress → []record.Pushed
	Login                         // (ask.RegistryAuth) → record.LoggedIn
)
