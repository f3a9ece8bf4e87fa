package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"gopeft/bindings"
	"gopeft/train"
	"gopeft/train/dist"
)

// meeting is what doctor --dist prints.
type meeting struct {
	Processes []dist.Place `json:"processes"`
	dist.Links
}

// doctorDist lets the processes of a run meet and add up, and tells where each is and how fast that was.
func doctorDist(c *cli.Context) error {
	device := c.String("device")
	if launched, err := inProcesses(c, device, 0); launched || err != nil {
		return err
	}
	return shared(c, func(group *dist.Group) error {
		if group == nil {
			return train.Usage("doctor --dist is of several processes: give --nproc, or start it as the run is started")
		}
		m := meeting{Processes: group.Places()}
		err := bindings.Do(c.Context, func(s *bindings.Scope) error {
			dev, note, err := train.OpenDevice(s, device, group.LocalRank())
			if err != nil {
				return err
			}
			if note != "" {
				newUI(c).Note("%s", note)
			}
			if err := group.Join(c.Context, s, dev); err != nil {
				return err
			}
			if m.Links, err = group.Measure(s, dev); err != nil {
				return err
			}
			devices, err := group.GatherBytes(s, []byte(dev.String()))
			for rank, name := range devices {
				m.Processes[rank].Device = string(name)
			}
			return err
		})
		if err != nil || !group.First() {
			return err
		}
		return m.print(c)
	})
}

func (m meeting) print(c *cli.Context) error {
	w := c.App.Writer
	if c.Bool("json") {
		return printJSON(w, m)
	}
	for _, p := range m.Processes {
		fmt.Fprintf(w, "rank %-3d   %s, process %d, listens on %s (%s), computes on %s\n", p.Rank, p.Host, p.PID, p.Address, p.Interface, p.Device)
	}
	fmt.Fprintf(w, "%-10s one number is summed in %.3g ms, %d MiB in %.3g ms\n", m.Engine, 1000*m.SmallS, m.LargeMiB, 1000*m.LargeS)
	return nil
}
