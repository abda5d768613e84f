package badinput

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func hostileCases(canary string) []hostile {
	var all []hostile
	for _, group := range [][]hostile{
		traversal(canary), symlinks(canary), hardLinks(canary), whiteouts(canary), devices(canary), swapped(canary),
		attributes(), headers(), numbers(), bombs(), framing(), documents(), archives(), registries(),
	} {
		all = append(all, group...)
	}
	return all
}

func refused(name, want string, entries ...entry) hostile {
	return hostile{name: name, want: want, layer: tarOf(entries...)}
}

func taken(name string, inside func(string) error, entries ...entry) hostile {
	return hostile{name: name, harmless: true, inside: inside, layer: tarOf(entries...)}
}

const dotdot = `the name holds ".."`

func traversal(canary string) []hostile {
	return []hostile{
		refused("dotdot", dotdot, reg("../evil", "x")),
		refused("dotdot deep", dotdot, reg(strings.Repeat("../", 40)+"etc/evil", "x")),
		refused("dotdot inside", dotdot, folder("a"), reg("a/../../evil", "x")),
		refused("dotdot that stays inside", dotdot, folder("a"), reg("a/../b", "x")),
		refused("dotdot last", dotdot, folder("a/..")),
		refused("dotdot alone", dotdot, folder("..")),
		refused("dotdot after a slash", dotdot, reg("/../evil", "x")),
		refused("dotdot after dots", dotdot, reg("./../evil", "x")),
		refused("dotdot among slashes", dotdot, reg("a//..//..//evil", "x")),
		taken("absolute", holds("canary/secret", "x"), reg("/canary/secret", "x")),
		taken("absolute as outside", has(canary+"/secret"), reg(canary+"/secret", "x")),
		taken("many slashes", has("etc/passwd"), reg("////etc////passwd", "x")),
		taken("three dots are a name", has(".../x"), reg(".../x", "x")),
		taken("backslashes are a name", has(`..\evil`), reg(`..\evil`, "x")),
		taken("newline in a name", has("a\nb"), reg("a\nb", "x")),
		taken("terminal escapes in a name", has("\x1b[2Jx"), reg("\x1b[2Jx", "x")),
		taken("no utf-8", has("\xff\xfe"), reg("\xff\xfe", "x")),
		refused("root as a file", "root is not a directory", reg(".", "x")),
		{name: "root as a slash", want: "root is not a directory", layer: changed(tarOf(reg("a", "")), put(0, "/"))},
		refused("root as a symlink", "root is not a directory", sym(".", canary)),
		{name: "empty name", want: "root is not a directory", layer: changed(tarOf(reg("a", "")), func(b []byte) { clear(b[:100]) })},
	}
}

func symlinks(canary string) []hostile {
	up := strings.Repeat("../", 30)[:3*30-1] + canary
	return []hostile{
		refused("symlink absolute", "entries lie below it", sym("s", canary), reg("s/evil", "x")),
		refused("symlink relative", "entries lie below it", sym("s", up), reg("s/evil", "x")),
		refused("symlink chain", "entries lie below it", sym("a", "b"), sym("b", "c"), sym("c", up), reg("a/evil", "x")),
		refused("symlink loop", "", sym("a", "b"), sym("b", "a"), reg("a/x", "x")),
		refused("symlink to itself", "", sym("a", "a"), reg("a/x", "x")),
		refused("symlink to proc", "", sym("a", "/proc/self/cwd"), reg("a/evil", "x")),
		refused("symlink to a descriptor", "", sym("a", "/proc/self/fd/3"), reg("a/evil", "x")),
		refused("symlink to root of a process", "", sym("a", "/proc/1/root"), reg("a/evil", "x")),
		refused("symlink, directory below", "", sym("s", up), folder("s/d/e")),
		refused("symlink, fifo below", "", sym("s", up), special(tar.TypeFifo, "s/f", 0, 0)),
		refused("symlink, symlink below", "", sym("s", up), sym("s/evil", "x")),
		refused("symlink through a file", "", reg("f", "x"), sym("s", "f"), reg("s/x", "x")),
		taken("symlink dotdot", has("evil"), sym("s", ".."), reg("s/evil", "x")),
		taken("symlink to the same path inside", holds(canary+"/secret", "x"), folder(canary), sym("s", canary), reg("s/secret", "x")),
		taken("symlink relative to the same path inside", holds(canary+"/secret", "x"), folder(canary), sym("s", up), reg("s/secret", "x")),
		taken("symlink replaced by a directory", has("s/evil"), sym("s", up), folder("s"), reg("s/evil", "x")),
		taken("symlink replaced by a file", holds("s", "x"), sym("s", up+"/secret"), reg("s", "x")),
		taken("symlink with a mode", has("s"), entry{h{Name: "s", Typeflag: tar.TypeSymlink, Linkname: up + "/secret", Mode: 0o7777, Uid: 5}, ""}),
		taken("symlink with attributes", has("s"), attrs(sym("s", up+"/secret"), "user.evil", "x")),
		refused("symlink with capabilities that cannot be", "", attrs(sym("s", up+"/secret"), "security.capability", "x")),
		{name: "symlink to nothing", want: "target is empty", layer: changed(tarOf(sym("s", "x")), func(b []byte) { clear(b[157:257]) })},
		refused("symlink target too long", "too long", sym("s", strings.Repeat("x", 5000))),
		taken("symlink at the accounts file", has("etc/passwd"), sym("etc/passwd", up+"/secret")),
		taken("symlink at the accounts directory", has("etc"), sym("etc", up), reg("x", "")),
		taken("accounts file is a fifo", has("etc/passwd"), special(tar.TypeFifo, "etc/passwd", 0, 0)),
		taken("accounts file is a directory", has("etc/passwd"), folder("etc/passwd")),
		taken("accounts file is binary", has("etc/passwd"), reg("etc/passwd", strings.Repeat("\x00:\xff", 1<<16))),
		taken("accounts file is one line", has("etc/group"), reg("etc/group", strings.Repeat("x", 8<<20))),
	}
}

func hardLinks(canary string) []hostile {
	up := strings.Repeat("../", 30)[:3*30-1] + canary
	return []hostile{
		refused("hard link dotdot", dotdot, hard("a", up+"/secret"), reg("a", "x")),
		refused("hard link absolute", "", hard("a", canary+"/secret")),
		refused("hard link by a symlink", "", sym("s", up), hard("a", "s/secret"), reg("a", "x")),
		refused("hard link by an absolute symlink", "", sym("s", canary), hard("a", "s/secret")),
		refused("hard link below a symlink", "", reg("f", ""), sym("s", up), hard("s/secret", "f")),
		refused("hard link to the root", "", hard("a", ".")),
		refused("hard link to itself", "", reg("a", ""), hard("a", "a")),
		refused("hard link to a directory", "", folder("d"), hard("a", "d")),
		refused("hard link to what comes later", "not in this layer", hard("a", "later"), reg("later", "x")),
		refused("hard link to nothing", "not in this layer", hard("a", "gone")),
		refused("hard link to what it replaces", "", folder("d"), sym("s", "d"), reg("d/f", ""), hard("s/f", "d/f")),
		refused("hard link to a directory above", "", folder("d"), hard("d/a", "d")),
		refused("hard link below its target", "", reg("f", ""), hard("f/a", "f")),
		taken("hard link to a symlink", has("a"), sym("s", up+"/secret"), hard("a", "s")),
		taken("hard link to a symlink, then a file", holds("a", "x"), sym("s", up+"/secret"), hard("a", "s"), reg("a", "x")),
		taken("hard link with another owner", has("a"), reg("f", "x"), entry{h{Name: "a", Typeflag: tar.TypeLink, Linkname: "f", Uid: 7, Mode: 0o7777}, ""}),
		refused("hard link to a file of the link's directory tree that goes", "", reg("d/f", "x"), hard("d", "d/f")),
		{name: "hard link with content", harmless: true, layer: func() []byte {
			return changed(tarOf(reg("a", strings.Repeat("x", 600))), func(b []byte) { b[156] = '0' })
		}()},
	}
}

func whiteouts(canary string) []hostile {
	up := strings.Repeat("../", 30)[:3*30-1] + canary
	const nothing = "means nothing"
	marked := func(name string) func(string) error {
		return func(fs string) error {
			var st unix.Stat_t
			err := unix.Lstat(filepath.Join(fs, name), &st)
			if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0) {
				err = fmt.Errorf("%s is no whiteout", name)
			}
			return err
		}
	}
	return []hostile{
		refused("whiteout of dotdot", nothing, reg(".wh...", "")),
		refused("whiteout of dot", nothing, reg(".wh..", "")),
		refused("whiteout of nothing", nothing, reg(".wh.", "")),
		refused("whiteout of dotdot below", nothing, reg("d/.wh...", "")),
		refused("whiteout as a directory", nothing, reg(".wh.x/y", "")),
		refused("whiteout twice", nothing, reg(".wh.a/.wh.b", "")),
		refused("whiteout by a symlink", "", sym("s", up), reg("s/.wh.secret", "")),
		refused("opaque by a symlink", "", sym("s", up), reg("s/.wh..wh..opq", "")),
		refused("opaque below a file", "", reg("f", ""), reg("f/.wh..wh..opq", "")),
		refused("whiteout below a file", "", reg("f", ""), reg("f/.wh.x", "")),
		refused("whiteout by an absolute symlink", "", sym("s", canary), reg("s/.wh.secret", "")),
		taken("whiteout of a whiteout", hasNot(".wh.x"), reg(".wh..wh.x", ""), reg("keep", ""), reg(".wh..wh..wh.x", "")),
		taken("whiteout of a symlink", has("s"), sym("s", up), reg(".wh.s", "")),
		taken("whiteout with content", marked("x"), reg(".wh.x", "content")),
		taken("whiteout as a symlink", marked("x"), sym(".wh.x", up)),
		taken("whiteout as a directory entry", marked("x"), folder(".wh.x")),
		taken("whiteout as a hard link", marked("x"), hard(".wh.x", up)),
		taken("whiteout as a device", marked("x"), special(tar.TypeBlock, ".wh.x", 8, 0)),
		taken("whiteout with setuid", marked("x"), entry{h{Name: ".wh.x", Typeflag: tar.TypeReg, Mode: 0o7777, Uid: 9}, ""}),
		taken("whiteout of what its layer has", has("kept"), reg("kept", ""), reg(".wh.kept", "")),
		taken("opaque root", hasNot(".wh..wh..opq"), reg(".wh..wh..opq", ""), reg("x", "")),
		taken("what AUFS left", hasNot(".wh..wh.plnk"), reg(".wh..wh.plnk/1.2", "x"), hard(".wh..wh.aufs", up)),
		refused("whiteout written as a node", "device nodes are not unpacked", special(tar.TypeChar, "etc/passwd", 0, 0)),
	}
}

func devices(canary string) []hostile {
	up := strings.Repeat("../", 30)[:3*30-1] + canary
	const no = "device nodes are not unpacked"
	suid := func(fs string) error {
		st, err := os.Lstat(filepath.Join(fs, "su"))
		if err == nil && st.Mode()&os.ModeSetuid == 0 {
			err = fmt.Errorf("mode %v", st.Mode())
		}
		return err
	}
	return []hostile{
		refused("block device", no, special(tar.TypeBlock, "srv/disk", 8, 0)),
		refused("character device", no, special(tar.TypeChar, "srv/mem", 1, 1)),
		refused("device called dev", no, special(tar.TypeChar, "dev", 1, 3)),
		refused("device in devices", no, special(tar.TypeChar, "devices/x", 1, 1)),
		refused("device with a huge number", "", entry{h{Name: "f", Typeflag: tar.TypeBlock, Devmajor: 1 << 20, Format: tar.FormatGNU}, ""}),
		refused("device by a symlink", "", sym("s", up), special(tar.TypeChar, "s/n", 1, 3)),
		refused("device by a symlink to dev", no, folder("dev"), sym("x", "dev"), special(tar.TypeBlock, "x/sda", 8, 0)),
		taken("device in dev is left out", hasNot("dev/sda"), special(tar.TypeBlock, "dev/sda", 8, 0)),
		taken("device deep in dev is left out", hasNot("dev/a/b"), special(tar.TypeBlock, "dev/a/b", 8, 0)),
		taken("setuid keeps its owner inside", suid, entry{h{Name: "su", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 1000}, "#!"}),
		taken("setgid sticky directory", has("d"), entry{h{Name: "d", Typeflag: tar.TypeDir, Mode: 0o7777}, ""}),
		taken("fifo", has("f"), special(tar.TypeFifo, "f", 0, 0)),
		{name: "a socket", want: "no place in a layer", layer: changed(tarOf(reg("s", "")), func(b []byte) { b[156] = 'S' + 1 })},
		{name: "directory that may not be entered", harmless: true, inside: has("d/f"), layer: tarOf(entry{h{Name: "d", Typeflag: tar.TypeDir, Mode: 0o1}, ""}, reg("d/f", ""))},
	}
}

// swapped replaces what entries lie in while the layer is unpacked.
func swapped(canary string) []hostile {
	up := strings.Repeat("../", 30)[:3*30-1] + canary
	return []hostile{
		refused("parent becomes a symlink", "", folder("a"), reg("a/f", ""), sym("a", up), reg("a/evil", "x")),
		refused("parent's parent becomes a symlink", "", folder("a/b"), reg("a/b/f", ""), sym("a", up), reg("a/b/evil", "x")),
		refused("parent becomes a file", "", reg("a/b/f", ""), reg("a", ""), reg("a/b/f", "")),
		refused("parent becomes a hard link", "", reg("x", ""), reg("a/f", ""), hard("a", "x"), reg("a/f", "")),
		refused("parent becomes a symlink before a hard link", "", reg("x", ""), reg("a/f", ""), sym("a", up), hard("a/evil", "x")),
		refused("parent becomes a symlink before a whiteout", "", reg("a/f", ""), sym("a", up), reg("a/.wh.secret", "")),
		taken("parent becomes a symlink at the end", has("a"), folder("a"), folder("a/b"), sym("a", up)),
		taken("times of a directory that became a symlink", has("a"), folder("a/b/c"), sym("a/b", up)),
		taken("directory that became a symlink and back", holds("a/f", "2"), folder("a"), reg("a/f", "1"), sym("a", up), folder("a"), reg("a/f", "2")),
		taken("symlink retargeted", holds("two/f", "x"), folder("one"), folder("two"), sym("s", "one"), reg("s/g", ""), sym("s", "two"), reg("s/f", "x")),
		taken("children before parents", has("a/b/c/f"), reg("a/b/c/f", "x"), entry{h{Name: "a/b/c", Typeflag: tar.TypeDir, Mode: 0o700}, ""}, entry{h{Name: "a", Typeflag: tar.TypeDir, Mode: 0o711}, ""}),
		taken("one name a thousand times", holds("f", "999"), func() (out []entry) {
			for i := range 1000 {
				out = append(out, reg("f", fmt.Sprint(i)))
			}
			return out
		}()...),
		taken("every kind at one name", holds("x", "last"), reg("x", "1"), folder("x"), reg("x/y", ""), sym("x", up), special(tar.TypeFifo, "x", 0, 0), reg("t", ""), hard("x", "t"), reg("x", "last")),
		taken("file that replaces a full directory", holds("a", "x"), folder("a"), reg("a/b/c/d", ""), reg("a", "x")),
	}
}

func attributes() []hostile {
	forged := func(kind, name string, e entry, kv ...string) hostile {
		return taken("forged "+kind, noAttr(e.h.Name, name), attrs(e, kv...))
	}
	many := reg("f", "")
	var kv []string
	for i := range 300 {
		kv = append(kv, fmt.Sprint("user.", i), "x")
	}
	v2 := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	return []hostile{
		forged("opaque", "trusted.overlay.opaque", folder("d"), "trusted.overlay.opaque", "y"),
		forged("opaque x", "trusted.overlay.opaque", folder("d"), "trusted.overlay.opaque", "x"),
		forged("redirect", "trusted.overlay.redirect", folder("d"), "trusted.overlay.redirect", "/etc"),
		forged("metacopy", "trusted.overlay.metacopy", reg("d", ""), "trusted.overlay.metacopy", ""),
		forged("origin", "trusted.overlay.origin", reg("d", ""), "trusted.overlay.origin", "x"),
		forged("impure", "trusted.overlay.impure", folder("d"), "trusted.overlay.impure", "y"),
		forged("nlink", "trusted.overlay.nlink", reg("d", ""), "trusted.overlay.nlink", "U+1"),
		forged("upper", "trusted.overlay.upper", folder("d"), "trusted.overlay.upper", "x"),
		forged("whiteout attribute", "trusted.overlay.whiteout", reg("d", ""), "trusted.overlay.whiteout", "y"),
		forged("user opaque", "user.overlay.opaque", folder("d"), "user.overlay.opaque", "y"),
		forged("user redirect", "user.overlay.redirect", folder("d"), "user.overlay.redirect", "/etc"),
		forged("nested overlay", "trusted.overlay.overlay.opaque", folder("d"), "trusted.overlay.overlay.opaque", "y"),
		forged("root opaque", "trusted.overlay.opaque", folder("."), "trusted.overlay.opaque", "y"),
		forged("selinux label", "security.evil", reg("d", ""), "security.evil", "u:r:t:s0"),
		forged("ima", "security.ima", reg("d", ""), "security.ima", "x"),
		forged("trusted attribute", "trusted.x", reg("d", ""), "trusted.x", "y"),
		refused("capabilities cut off", "capabilities", attrs(reg("f", ""), "security.capability", "x")),
		refused("capabilities of no revision", "capabilities", attrs(reg("f", ""), "security.capability", "\x00\x00\x00\x09"+v2[4:])),
		taken("capabilities of another namespace", func(fs string) error {
			var b [64]byte
			n, err := unix.Lgetxattr(filepath.Join(fs, "f"), "security.capability", b[:])
			if err == nil && n != 20 {
				err = fmt.Errorf("%d bytes of capabilities", n)
			}
			return err
		}, attrs(reg("f", ""), "security.capability", "\x01\x00\x00\x03"+v2[4:]+"\xa0\x86\x01\x00")),
		refused("acl that is none", "", attrs(reg("f", ""), "system.posix_acl_access", "nonsense")),
		refused("default acl on a file", "", attrs(reg("f", ""), "system.posix_acl_default", "\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x04\x00\x05\x00\xff\xff\xff\xff\x20\x00\x05\x00\xff\xff\xff\xff")),
		refused("attributes without number", "extended attributes in one entry", attrs(many, kv...)),
		refused("attribute too large", "bytes in an extended attribute", attrs(reg("f", ""), "user.x", strings.Repeat("x", 70000))),
		refused("attribute name too long", "", attrs(reg("f", ""), "user."+strings.Repeat("x", 300), "x")),
	}
}

// headers are wrong in themselves.
func headers() []hostile {
	whole := tarOf(reg("a", "content"))
	rotten := bytes.Clone(whole)
	rotten[3] ^= 0xff
	second := tarOf(reg("a", "x"), reg("b", "y"))
	second[1024+4] ^= 0xff
	return []hostile{
		{name: "checksum", want: "", layer: rotten},
		{name: "checksum of the second entry", want: "", layer: second},
		{name: "unknown type", want: "no place in a layer", layer: changed(whole, func(b []byte) { b[156] = 'Z' })},
		{name: "type zero with a slash", harmless: true, layer: changed(tarOf(reg("a", "")), func(b []byte) { b[156] = 0; b[1] = '/' })},
		{name: "size that is no number", layer: changed(whole, put(124, "zzzzzzzzzzz"))},
		{name: "size below zero", layer: changed(whole, put(124, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00"))},
		{name: "size beyond the archive", layer: changed(whole, put(124, "00000777777"))},
		{name: "size of an exbibyte", want: "bytes in files", layer: changed(whole, put(124, "\x80\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00"))},
		{name: "mode that is no number", layer: changed(whole, put(100, "zzzzzzz"))},
		{name: "time before all clocks", layer: changed(whole, put(136, "\xff\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")), harmless: false},
		{name: "pax without equals", layer: pax("12 nonsense\n", reg("a", ""))},
		{name: "pax with a wrong length", layer: pax("99999 path=x\n", reg("a", ""))},
		{name: "pax with a length below zero", layer: pax("-5 path=x\n", reg("a", ""))},
		{name: "pax with a length beyond numbers", layer: pax("99999999999999999999999 path=x\n", reg("a", ""))},
		{name: "pax name with dotdot", want: dotdot, layer: pax(paxRecord("path", "../evil"), reg("a", ""))},
		{name: "pax name with NUL", layer: pax(paxRecord("path", "a\x00b"), reg("a", ""))},
		{name: "pax link with dotdot", want: dotdot, layer: pax(paxRecord("linkpath", "../../evil"), hard("a", "x"))},
		{name: "pax size below zero", layer: pax(paxRecord("size", "-1"), reg("a", ""))},
		{name: "pax size beyond limits", want: "", layer: pax(paxRecord("size", "9223372036854775807"), reg("a", ""))},
		{name: "pax owner below zero", want: "no owner", layer: pax(paxRecord("uid", "-1"), reg("a", ""))},
		{name: "pax owner beyond ids", want: "no owner", layer: pax(paxRecord("uid", "4294967295"), reg("a", ""))},
		{name: "pax group beyond numbers", layer: pax(paxRecord("gid", "99999999999999999999"), reg("a", ""))},
		{name: "pax time that is none", layer: pax(paxRecord("mtime", "yesterday"), reg("a", ""))},
		{name: "pax header of two megabytes", layer: pax(strings.Repeat(paxRecord("comment", strings.Repeat("x", 1000)), 2100), reg("a", ""))},
		{name: "pax header for nothing", harmless: true, layer: pax(paxRecord("path", "x"))},
		{name: "global header that names a path", harmless: true, inside: has("a"), layer: func() []byte {
			g := changed(tarOf(reg("g", paxRecord("path", "../evil"))), func(b []byte) { b[156] = 'g' })
			return append(g[:1024], tarOf(reg("a", "x"))...)
		}()},
		{name: "long name of two megabytes", layer: func() []byte {
			g := changed(tarOf(reg("././@LongLink", strings.Repeat("x", 2<<20))), func(b []byte) { b[156] = 'L' })
			return append(g[:len(g)-1024], tarOf(reg("a", "x"))...)
		}()},
		{name: "long name with dotdot", want: dotdot, layer: func() []byte {
			g := changed(tarOf(reg("././@LongLink", "../../../evil\x00")), func(b []byte) { b[156] = 'L' })
			return append(g[:1024], tarOf(reg("a", "x"))...)
		}()},
		refused("component of 256 bytes", "", reg(strings.Repeat("n", 256), "")),
		refused("name of 4200 bytes", "bytes in a name", reg(strings.Repeat("n/", 2100)+"f", "")),
		taken("name of 4000 bytes", nil, reg(strings.Repeat("n/", 1999)+"f", "")),
	}
}

func numbers() []hostile {
	return []hostile{
		refused("owner that is nobody's", "no owner", entry{h{Name: "f", Typeflag: tar.TypeReg, Uid: 1<<32 - 1}, ""}),
		refused("owner below zero", "no owner", entry{h{Name: "f", Typeflag: tar.TypeReg, Gid: -1, Format: tar.FormatGNU}, ""}),
		refused("owner beyond ids", "no owner", entry{h{Name: "f", Typeflag: tar.TypeReg, Uid: 1 << 40, Format: tar.FormatGNU}, ""}),
		taken("the highest owner", has("f"), entry{h{Name: "f", Typeflag: tar.TypeReg, Uid: 1<<32 - 2}, ""}),
	}
}

// sparse is a GNU sparse file of version 1.0 that says it has realsize bytes.
func sparse(realsize, sparseMap string) []byte {
	body := sparseMap + strings.Repeat("\x00", 512-len(sparseMap)%512) + strings.Repeat("x", 512)
	return pax(paxRecord("GNU.sparse.major", "1")+paxRecord("GNU.sparse.minor", "0")+paxRecord("GNU.sparse.name", "big")+
		paxRecord("GNU.sparse.realsize", realsize), reg("GNUSparseFile.0/big", body))
}

// bombs want the disk, the memory or the time of the host.
func bombs() []hostile {
	parents := strings.Repeat("d/", 1900) + "f"
	return []hostile{
		{name: "gzip of three gigabytes", want: "times its size", archive: gzipBomb(3)},
		{name: "zstd of three gigabytes", want: "times its size", archive: zstdBomb(3)},
		{name: "sparse beyond the limit", want: "bytes in files", layer: sparse("1099511627776", "1\n0\n512\n")},
		{name: "sparse beyond numbers", layer: sparse("99999999999999999999", "1\n0\n512\n")},
		{name: "sparse below zero", layer: sparse("-5", "1\n0\n512\n")},
		{name: "sparse map out of order", layer: sparse("4096", "2\n2048\n256\n0\n256\n")},
		{name: "sparse map that overlaps", layer: sparse("4096", "2\n0\n400\n100\n112\n")},
		{name: "sparse map that lies", layer: sparse("4096", "1000000\n0\n512\n")},
		{name: "sparse map without end", layer: sparse("4096", strings.Repeat("9", 400))},
		{name: "sparse of a gigabyte costs nothing", harmless: true, layer: sparse("1073741824", "1\n0\n512\n"), inside: func(fs string) error {
			var st unix.Stat_t
			err := unix.Lstat(fs+"/big", &st)
			if err == nil && (st.Size != 1<<30 || st.Blocks > 64) {
				err = fmt.Errorf("%d bytes, %d blocks", st.Size, st.Blocks)
			}
			return err
		}},
		{name: "old sparse beyond the limit", layer: changed(tarOf(reg("s", "")), func(b []byte) {
			b[156] = 'S'
			copy(b[257:], "ustar  \x00")
			copy(b[483:], "\x80\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00")
		})},
		taken("parents left out", nil, reg(parents, "")),
		{name: "zeros without end", want: "after its end", stream: endless{}},
	}
}

// endless is zeros for ever: an empty archive, and more.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
