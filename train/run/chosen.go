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
		case "lr", "threads", "quantize", "pool", "read-as":
			fn(key, v.IsZero(), v)
		case "amp", "device", "base-dtype":
			fn(key, v.IsZero() || v.String() == "auto", v)
		}
	})
}

// choices are what a run chooses by itself.
type choices struct {
	lr             float64 // 0: it has none, as features have
	amp            bindings.DType
	base, quantize string
	pool           string // of features alone
	readAs         string // "": there is no choice
	device         bindings.Device
	threads        int
}

// choose fills in what was left open with what the run has chosen, and lists it as Automatic.
func (c Config) choose(x choices) Config {
	chosen := map[string]any{"lr": x.lr, "amp": train.AMPName(x.amp), "base-dtype": x.base, "quantize": x.quantize, "device": x.device.String(), "threads": x.threads, "pool": x.pool, "read-as": x.readAs}
	c.Automatic = slices.Clone(c.Automatic) // of a session that ended before its first checkpoint
	c.open(func(key string, open bool, v reflect.Value) {
		if open && chosen[key] != 0.0 && chosen[key] != "" {
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
