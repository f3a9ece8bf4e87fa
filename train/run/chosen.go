package run

import (
	"reflect"
	"slices"

	"gopeft/bindings"
	"gopeft/train"
)

// open calls fn with every setting that a run chooses where it is not asked for, and with whether it is left open.
func (c *Config) open(fn func(key string, open bool, v reflect.Value)) {
	c.each(func(key string, v reflect.Value) {
		switch key {
		case "lr", "threads":
			fn(key, v.IsZero(), v)
		case "amp", "device":
			fn(key, v.IsZero() || v.String() == "auto", v)
		}
	})
}

// choose fills in what was left open with what the run has chosen, and lists it as Automatic.
func (c Config) choose(lr float64, amp bindings.DType, dev bindings.Device, threads int) Config {
	chosen := map[string]any{"lr": lr, "amp": train.AMPName(amp), "device": dev.String(), "threads": threads}
	c.Automatic = slices.Clone(c.Automatic) // of a session that ended before its first checkpoint
	c.open(func(key string, open bool, v reflect.Value) {
		if open && chosen[key] != 0.0 { // features have no learning rate
			v.Set(reflect.ValueOf(chosen[key]))
			c.Automatic = append(c.Automatic, key)
		}
	})
	return c
}

// adopt fills in what is left open with what an earlier session of the run chose.
func (c Config) adopt(was Config) Config {
	chosen := map[string]reflect.Value{}
	was.open(func(key string, _ bool, v reflect.Value) { chosen[key] = v })
	c.open(func(key string, open bool, v reflect.Value) {
		if open && slices.Contains(was.Automatic, key) {
			v.Set(chosen[key])
		}
	})
	c.Automatic = was.Automatic
	return c
}
