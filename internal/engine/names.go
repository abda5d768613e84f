package engine

import "math/rand/v2"

// randomName makes a container name of a trait and a medieval office. There
// are some 2,500; the caller tries again when one is taken.
func randomName() string {
	return traits[rand.IntN(len(traits))] + "_" + offices[rand.IntN(len(offices))]
}

var traits = [...]string{
	"able", "amber", "ample", "apt", "bold", "brave", "brisk", "bright", "calm", "candid", "clear", "clever", "cosy", "deft",
	"eager", "early", "fair", "fleet", "frank", "gentle", "glad", "grand", "hale", "hardy", "honest", "humble", "jolly", "keen",
	"kind", "lively", "loyal", "lucid", "merry", "mild", "neat", "nimble", "noble", "patient", "plain", "proud", "quiet", "rapid",
	"ready", "serene", "sharp", "silent", "spry", "steady", "stout", "sturdy", "sunny", "swift", "tidy", "true", "trusty", "valiant",
	"vivid", "warm", "wise", "zealous",
}

var offices = [...]string{
	"abbot", "almoner", "archer", "bailiff", "baker", "baron", "beadle", "brewer", "butler", "carter", "chandler", "cooper",
	"cottar", "falconer", "farrier", "fletcher", "forester", "friar", "fuller", "glazier", "groom", "herald", "jester", "joiner",
	"knight", "marshal", "mason", "miller", "minstrel", "page", "palmer", "reeve", "saddler", "scribe", "seneschal", "sexton",
	"sheriff", "smith", "squire", "steward", "tanner", "thatcher", "tinker", "vassal", "warden", "weaver", "wright", "yeoman",
}
