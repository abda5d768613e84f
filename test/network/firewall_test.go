package network_test

import (
	"strings"
	"testing"

	"github.com/google/nftables"
)

// drop makes a table as iptables-nft has it on a host whose firewall drops what
// is forwarded.
func drop(t *testing.T) {
	t.Helper()
	c := &nftables.Conn{}
	filter := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "filter"})
	policy := nftables.ChainPolicyDrop
	c.AddChain(&nftables.Chain{Name: "FORWARD", Table: filter, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward,
		Priority: nftables.ChainPriorityFilter, Policy: &policy})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.DelTable(filter)
		if err := c.Flush(); err != nil {
			t.Error(err)
		}
	})
}

// tables are those of daemons.
func tables(t *testing.T) (out []string) {
	t.Helper()
	all, err := (&nftables.Conn{}).ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range all {
		if strings.HasPrefix(table.Name, "fief-") {
			out = append(out, table.Name)
		}
	}
	return out
}

// elements counts those of all sets of all tables.
func elements(t *testing.T) (n int) {
	t.Helper()
	c := &nftables.Conn{}
	all, err := c.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range all {
		sets, err := c.GetSets(table)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range sets {
			list, err := c.GetSetElements(s)
			if err != nil {
				t.Fatal(err)
			}
			n += len(list)
		}
	}
	return n
}
