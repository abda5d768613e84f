package shift

import (
	"strings"
	"testing"

	"fief/internal/testenv"
)

// TestOutside: files with ids that the container's map has not, made under
// another one, are in a diff, an export and an image like others.
func TestOutside(t *testing.T) {
	d := testenv.Start(t)
	d.Busybox(t)
	d.Must(t, "run", "--name", "box", "--userns", "host", "busybox", "sh", "-c",
		"mkdir /srv; for id in 33 70000 3000000; do touch /srv/$id; chown $id:$id /srv/$id; done; chown 3000000 /etc/group")
	for _, userns := range []string{"", "auto", "auto:size=100000", "host"} {
		if userns != "" {
			d.Must(t, "update", "--userns", userns, "box")
		}
		if got := strings.ReplaceAll(d.Must(t, "diff", "box"), "\n", " "); got != "C /etc C /etc/group A /srv A /srv/3000000 A /srv/33 A /srv/70000" {
			t.Errorf("%s: diff %s", userns, got)
		}
		cmd := d.Command(t, "sh", "-c", "fief export box | tar --numeric-owner -tv | grep -E ' (srv/.|etc/group)' | tr -s ' ' | cut -d' ' -f2,6")
		if out, errs, _ := testenv.Output(t, cmd); strings.ReplaceAll(out, "\n", " ") != "3000000/0 etc/group 3000000/3000000 srv/3000000 33/33 srv/33 70000/70000 srv/70000 " {
			t.Errorf("%s: export %s%s", userns, out, errs)
		}
		d.Must(t, "commit", "box", "made")
		got := d.Must(t, "run", "--rm", "--userns", "host", "made", "sh", "-c", "stat -c %n=%u:%g /srv/* /etc/group")
		if strings.ReplaceAll(got, "\n", " ") != "/srv/3000000=3000000:3000000 /srv/33=33:33 /srv/70000=70000:70000 /etc/group=3000000:0" {
			t.Errorf("%s: image %s", userns, got)
		}
	}
}
