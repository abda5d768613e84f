package ask

import "time"

// Events asks for what happened in a span of time, both ends included. Without
// Since it begins now, or at Until where that is past; without Until it has no
// end.
type Events struct{ Since, Until time.Time }
