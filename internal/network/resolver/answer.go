package resolver

import (
	"strings"

	"github.com/miekg/dns"
)

const (
	// ttl is for how many seconds an answer about containers may be kept: as in
	// Docker, whose users know that a name may be another's address later.
	ttl = 600
	// udpSize is the largest datagram that is announced and sent: larger ones may
	// be cut into fragments on the way (RFC 9715), here there is no way.
	udpSize = 4096
	// maxQuery bounds what is read of one question. They have a few hundred bytes.
	maxQuery = 4096
	head     = 12 // bytes before the question (RFC 1035, 4.1.1)
)

// next says what is to be done about a question.
type next uint8

const (
	nothing next = iota // it deserves no answer
	send                // the answer is there
	forward             // somebody else knows
)

// local answers a packet from the container as far as it is about containers, is
// wrong, or is nobody's to ask. What is not is forwarded as it is.
func (s *server) local(packet []byte, stream bool) (reply []byte, todo next) {
	defer func() {
		// A defect in the reading of packets is the sender's problem, and not
		// every container's.
		if p := recover(); p != nil {
			s.service.log.Error("a question could not be read", "container", s.container, "cause", p)
			reply, todo = nil, nothing
		}
	}()
	q, refusal := read(packet)
	if refusal != nil {
		return pack(refusal, q, stream)
	}
	if q == nil {
		return nil, nothing
	}
	if a := s.names().answer(q); a != nil {
		return pack(a, q, stream)
	}
	if s.upstream().unqualified(q) {
		return pack(replyTo(q), q, stream)
	}
	return nil, forward
}

// read takes a question apart. One that can be answered only with a refusal
// comes with it; both nil means that it is not to be answered: it is an answer
// itself, which might be one to an answer of ours (RFC 9267, 4), or no message.
func read(packet []byte) (q, refusal *dns.Msg) {
	if len(packet) < head || packet[2]&0x80 != 0 {
		return nil, nil
	}
	q = &dns.Msg{}
	if err := q.Unpack(packet); err != nil {
		q = &dns.Msg{}
		q.Id, q.Opcode = uint16(packet[0])<<8|uint16(packet[1]), int(packet[2]>>3)&0xf
		return q, refuse(q, dns.RcodeFormatError)
	}
	opt := q.IsEdns0()
	switch {
	case q.Opcode != dns.OpcodeQuery:
		return q, refuse(q, dns.RcodeNotImplemented)
	case len(q.Question) != 1: // RFC 9619
		return q, refuse(q, dns.RcodeFormatError)
	case opt != nil && opt.Version() != 0: // RFC 6891, 6.1.3
		return q, refuse(q, dns.RcodeBadVers)
	}
	switch q.Question[0].Qtype {
	case dns.TypeAXFR, dns.TypeIXFR: // many messages, and none of them for us
		return q, refuse(q, dns.RcodeRefused)
	}
	return q, nil
}

func refuse(q *dns.Msg, code int) *dns.Msg {
	m := &dns.Msg{}
	m.SetReply(q)
	if len(q.Question) > 1 {
		m.Question = nil
	}
	m.RecursionAvailable, m.Rcode = true, code
	return m
}

func replyTo(q *dns.Msg) *dns.Msg { return refuse(q, dns.RcodeSuccess) }

// answer answers a question about containers, nil when it is about none. A name
// that there is has no data of other kinds, and nobody else is asked for them:
// they would say that there is no such name, and learn of it.
func (v *view) answer(q *dns.Msg) *dns.Msg {
	ask := q.Question[0]
	if ask.Qclass != dns.ClassINET && ask.Qclass != dns.ClassANY {
		return nil
	}
	if ask.Qtype == dns.TypePTR {
		return v.pointer(q)
	}
	four, known := v.addresses(ask.Name, true)
	if !known {
		return nil
	}
	six, _ := v.addresses(ask.Name, false)
	m := replyTo(q)
	rr := dns.RR_Header{Name: ask.Name, Class: dns.ClassINET, Ttl: ttl}
	switch {
	case ask.Qtype == dns.TypeA, ask.Qtype == dns.TypeANY && len(four) > 0: // of all kinds one will do (RFC 8482, 4.1)
		rr.Rrtype = dns.TypeA
		for _, a := range four {
			m.Answer = append(m.Answer, &dns.A{Hdr: rr, A: a.AsSlice()})
		}
	case ask.Qtype == dns.TypeAAAA, ask.Qtype == dns.TypeANY:
		rr.Rrtype = dns.TypeAAAA
		for _, a := range six {
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: rr, AAAA: a.AsSlice()})
		}
	}
	return m
}

func (v *view) pointer(q *dns.Msg) *dns.Msg {
	ask := q.Question[0]
	a, ok := reversed(ask.Name)
	if !ok {
		return nil
	}
	name := v.owner(a)
	if _, valid := dns.IsDomainName(name); name == "" || !valid {
		return nil
	}
	m := replyTo(q)
	rr := dns.RR_Header{Name: ask.Name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: ttl}
	m.Answer = append(m.Answer, &dns.PTR{Hdr: rr, Ptr: dns.Fqdn(name)})
	return m
}

// unqualified reports whether a name is to be asked for with a domain appended
// only: it has one label, and the user wants more dots in names that are whole.
// The asker's library then tries its search list, as with Docker.
func (u *Upstream) unqualified(q *dns.Msg) bool {
	ask := q.Question[0]
	return u.Qualified && (ask.Qtype == dns.TypeA || ask.Qtype == dns.TypeAAAA) && !strings.Contains(strings.TrimSuffix(ask.Name, "."), ".")
}

// pack makes the bytes of an answer, cut to what the asker takes.
func pack(m, q *dns.Msg, stream bool) ([]byte, next) {
	if opt := q.IsEdns0(); opt != nil { // RFC 6891, 6.1.1
		m.SetEdns0(udpSize, opt.Do())
	}
	m.Truncate(sizeFor(q, stream))
	b, err := m.Pack()
	if err != nil {
		return nil, nothing
	}
	return b, send
}

// sizeFor is how long an answer may be (RFC 1035, 4.2.1; RFC 6891, 6.2.5).
func sizeFor(q *dns.Msg, stream bool) int {
	if stream {
		return dns.MaxMsgSize
	}
	size := dns.MinMsgSize
	if opt := q.IsEdns0(); opt != nil {
		size = min(max(size, int(opt.UDPSize())), udpSize)
	}
	return size
}

// failure answers a question, which could be read before, with an error.
func failure(packet []byte, code int) []byte {
	q := &dns.Msg{}
	if q.Unpack(packet) != nil {
		return nil
	}
	b, _ := pack(refuse(q, code), q, false)
	return b
}
