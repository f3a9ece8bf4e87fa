package dist

import (
	"fmt"
	"net"
	"os"
	"time"

	"gopeft/bindings"
)

// Place is where a process of a run is, and how the others reach it.
type Place struct {
	Rank      int    `json:"rank"`
	Host      string `json:"host"`
	PID       int    `json:"pid"`
	Address   string `json:"address"`   // it listens on
	Interface string `json:"interface"` // that has the address
	Device    string `json:"device"`
}

// Links is how fast a group adds up.
type Links struct {
	Engine   string  `json:"engine"` // Gloo, or NCCL
	SmallS   float64 `json:"small_s"`
	LargeS   float64 `json:"large_s"`
	LargeMiB int     `json:"large_mib"`
}

// interfaceOf names the network interface that has an address, "" where none has.
func interfaceOf(address string) string {
	all, err := net.Interfaces()
	if err != nil {
		return ""
	}
	for _, i := range all {
		addresses, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addresses {
			if n, ok := a.(*net.IPNet); ok && n.IP.String() == address {
				return i.Name
			}
		}
	}
	return ""
}

// Places lists where the processes are, once they have joined.
func (g *Group) Places() []Place {
	places := make([]Place, g.Size())
	for rank, p := range g.peers {
		places[rank] = Place{Rank: rank, Host: p.Host, PID: p.PID, Address: p.Address, Interface: p.Interface}
	}
	return places
}

// Measure times sums over the ranks, of one number and of 25 MiB on the device; the fastest of several.
func (g *Group) Measure(s *bindings.Scope, device bindings.Device) (Links, error) {
	l := Links{Engine: g.backend, LargeMiB: 25}
	one, many := s.Zeros([]int64{1}, bindings.Float, device), s.Zeros([]int64{int64(l.LargeMiB) << 18}, bindings.Float, device)
	for _, m := range []struct {
		t  bindings.Tensor
		to *float64
	}{{one, &l.SmallS}, {many, &l.LargeS}} {
		for range 5 {
			begun := time.Now()
			if err := g.SumTensor(m.t); err != nil {
				return l, err
			}
			s.Synchronize(device)
			if took := time.Since(begun).Seconds(); *m.to == 0 || took < *m.to {
				*m.to = took
			}
		}
	}
	return l, nil
}

// Waited is how long this process has waited for sums and for others, in all.
func (g *Group) Waited() time.Duration {
	if g == nil {
		return 0
	}
	waited := g.waited
	if group := g.group.Load(); group != nil {
		_, gathered := group.Gathered()
		waited += gathered
	}
	return waited
}

// listens is what a process tells of its address, and of the interface: that of GLOO_SOCKET_IFNAME has no address here.
func listens(address string) (shown, name string) {
	if address != "" {
		return address, interfaceOf(address)
	}
	name = os.Getenv("GLOO_SOCKET_IFNAME")
	i, err := net.InterfaceByName(name)
	if err != nil {
		return "", name
	}
	addresses, err := i.Addrs()
	if err != nil || len(addresses) == 0 {
		return "", name
	}
	if n, ok := addresses[0].(*net.IPNet); ok {
		return n.IP.String(), name
	}
	return fmt.Sprint(addresses[0]), name
}
