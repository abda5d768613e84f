package plan

// Layout numbers what an encoded plan means: where its fields lie and what its
// operations do. Two builds that have the same number carry out each other's
// plans. It is raised by whoever changes Header, RawOp, RawRlimit, RawScheduler,
// the order of OpKind or the bits of Header.Bools, which TestLayout notices, and
// by whoever gives one of them another meaning, which no test can.
const Layout = 4 + later
