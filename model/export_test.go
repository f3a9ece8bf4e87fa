package model

import "gopeft/bindings"

// Offload is Stream for a GPU, on whatever device.
func Offload(m Model, dev bindings.Device) (Elsewhere, error) {
	return m.(interface {
		offload(dev bindings.Device) (Elsewhere, error)
	}).offload(dev)
}
