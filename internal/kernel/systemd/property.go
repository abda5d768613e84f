package systemd

// Property is a unit's property by its D-Bus name (org.freedesktop.systemd1(5)),
// which is not always that of unit files.
type Property struct {
	Name  string
	Value Value
}

// Value is what a property may have: one of the types below.
type Value interface {
	types() string
	write(w *writer)
}

// The types of values: s, b, t, u, i, ay, au, as, and the list of commands of a
// service.
type (
	Text    string
	Flag    bool
	Number  uint64
	Word    uint32
	Int     int32
	Bytes   []byte
	PIDs    []uint32
	Texts   []string
	Command []string
)

func (Text) types() string    { return "s" }
func (Flag) types() string    { return "b" }
func (Number) types() string  { return "t" }
func (Word) types() string    { return "u" }
func (Int) types() string     { return "i" }
func (Bytes) types() string   { return "ay" }
func (PIDs) types() string    { return "au" }
func (Texts) types() string   { return "as" }
func (Command) types() string { return "a(sasb)" }

func (v Text) write(w *writer) { w.text(string(v)) }

func (v Flag) write(w *writer) {
	if v {
		w.u32(1)
		return
	}
	w.u32(0)
}

func (v Number) write(w *writer) { w.u64(uint64(v)) }
func (v Word) write(w *writer)   { w.u32(uint32(v)) }
func (v Int) write(w *writer)    { w.u32(uint32(v)) }

func (v Bytes) write(w *writer) {
	w.array(1, func() { w.b = append(w.b, v...) })
}

func (v PIDs) write(w *writer) {
	w.array(4, func() {
		for _, pid := range v {
			w.u32(pid)
		}
	})
}

func (v Texts) write(w *writer) {
	w.array(4, func() {
		for _, s := range v {
			w.text(s)
		}
	})
}

// write: the path of the program, its arguments from the first word on, and
// whether its failure is ignored.
func (v Command) write(w *writer) {
	w.array(8, func() {
		w.align(8)
		w.text(v[0])
		Texts(v).write(w)
		Flag(false).write(w)
	})
}

// properties writes a(sv).
func properties(w *writer, list []Property) {
	w.array(8, func() {
		for _, p := range list {
			w.align(8)
			w.text(p.Name)
			w.signature(p.Value.types())
			p.Value.write(w)
		}
	})
}
