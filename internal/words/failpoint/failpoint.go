// Package failpoint names the moments at which a test kills the daemon: one
// after every step that makes something durable, and one before. In a build
// without the tag "failpoint", which is every build but those tests', a point
// is an empty function that the compiler leaves out.
package failpoint
