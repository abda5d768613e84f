package plan

import (
	"strconv"
	"strings"
	"syscall"
)

// String prints the plan a line per step: number, verb, object, details and,
// after #, the reason.
func (p *Plan) String() string {
	var b strings.Builder
	p.print(&b, false)
	return b.String()
}

// Listing prints the plan with the operations of every step.
func (p *Plan) Listing() string {
	var b strings.Builder
	b.WriteString("descriptors: " + strings.Join(p.Files, " ") + "\n")
	p.print(&b, true)
	return b.String()
}

func (p *Plan) print(b *strings.Builder, ops bool) {
	for i, s := range p.Steps {
		line := pad(strconv.Itoa(i), 3) + " " + pad(s.Verb, 10) + " " + s.Object
		if s.Detail != "" {
			line = pad(line, 52) + "  " + s.Detail
		}
		if s.Why != "" {
			line = pad(line, 78) + "  # " + s.Why
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
		if !ops {
			continue
		}
		for j := range s.Ops {
			b.WriteString("      " + pad(strconv.Itoa(j), 2) + " " + p.opText(&s.Ops[j], j) + "\n")
		}
	}
}

func pad(s string, n int) string {
	if len(s) >= n {
		return s
	}
	return s + strings.Repeat(" ", n-len(s))
}

// opText prints an operation: result = name(arguments), then where it goes on
// when not with the next one, and which errors are no failure.
func (p *Plan) opText(o *Op, at int) string {
	args := make([]string, len(o.Args))
	for i, a := range o.Args {
		if o.Kind != Call && (i == 0 || o.Kind == CloseAll && i < 5) && (o.Kind == Patch || o.Kind == TestSlot || o.Kind == Copy || o.Kind == CloseAll) {
			a = In(Slot(a.n))
		}
		args[i] = p.argText(a)
	}
	text := opName(o) + "(" + strings.Join(args, ", ") + ")"
	if o.Save != 0 {
		text = p.slotName(o.Save) + " = " + text
	}
	if o.Positive {
		text += " > 0"
	}
	if o.Skip != 0 {
		text += "  → " + strconv.Itoa(at+1+o.Skip)
	}
	var ignored []string
	for _, e := range o.Ignore {
		if e != 0 {
			ignored = append(ignored, errnoName(e))
		}
	}
	if ignored != nil {
		text += "  [" + strings.Join(ignored, " ")
		if o.OnIgnored != 0 {
			text += " → " + strconv.Itoa(at+1+o.OnIgnored)
		}
		text += "]"
	}
	return text
}

func opName(o *Op) string {
	switch o.Kind {
	case Call:
		return o.Name
	case CloseOthers:
		return "close-others"
	case ResetInherited:
		return "reset-inherited"
	case DropBounding:
		return "drop-bounding"
	case Patch:
		return "patch"
	case TestMem:
		return "if-equal"
	case TestSlot:
		return "if-held"
	case Copy:
		return "copy"
	case Fail:
		return "fail"
	case Forget:
		return "forget"
	case CloseAll:
		return "close-all"
	case Fork:
		return "fork"
	case Spawn:
		return "spawn"
	}
	return "?"
}

func (p *Plan) slotName(s Slot) string {
	if s <= 0 || int(s) > len(p.Slots) {
		return "%-"
	}
	return "%" + p.Slots[s-1]
}

func (p *Plan) argText(a Arg) string {
	switch a.kind {
	case argSlot:
		return p.slotName(Slot(a.n))
	case argString:
		return strconv.Quote(a.data)
	case argBytes:
		return plus(strconv.Quote(a.more.text), int(a.plus))
	case argScratch:
		return plus("&"+a.data, int(uint32(a.n)))
	case argWords:
		list := make([]string, len(a.more.words))
		for i, w := range a.more.words {
			list[i] = p.argText(w)
		}
		return "{" + strings.Join(list, ", ") + "}"
	}
	if a.hex {
		return "0x" + strconv.FormatUint(a.n, 16)
	}
	return strconv.FormatInt(int64(a.n), 10)
}

func plus(s string, n int) string {
	if n == 0 {
		return s
	}
	return s + "+" + strconv.Itoa(n)
}

// errnoName names the errnos that plans ignore.
func errnoName(e syscall.Errno) string {
	switch e {
	case syscall.ENOENT:
		return "ENOENT"
	case syscall.EEXIST:
		return "EEXIST"
	case syscall.EACCES:
		return "EACCES"
	case syscall.ENOTDIR:
		return "ENOTDIR"
	case syscall.EDQUOT:
		return "EDQUOT"
	case syscall.ENOSYS:
		return "ENOSYS"
	case syscall.EINVAL:
		return "EINVAL"
	case syscall.EBUSY:
		return "EBUSY"
	case syscall.EPERM:
		return "EPERM"
	}
	return "E" + strconv.Itoa(int(e))
}
