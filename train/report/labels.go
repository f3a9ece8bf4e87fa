package report

import (
	"math"

	"gonum.org/v1/plot/vg"
)

const (
	markRadius vg.Length = 4  // of a labelled point
	mostRadius vg.Length = 18 // of the largest disc about one
)

// place is a point with the size of the label it wants nearby.
type place struct {
	at            vg.Point
	width, height vg.Length
}

// placeLabels chooses a box for every label: inside the area, and overlapping
// no point and no other label as far as possible. Labels are placed one after
// the other at the nearest free spot around their point, and then once more
// in view of all the others.
func placeLabels(places []place, area vg.Rectangle) []vg.Rectangle {
	boxes := make([]vg.Rectangle, len(places))
	placed := make([]bool, len(places))
	const rounds = 3
	for range rounds {
		for i, p := range places {
			best, bestCost := vg.Rectangle{}, math.Inf(1)
			for rank, box := range candidates(p) {
				cost := outside(box, area)*10 + float64(rank)*0.5
				for j, other := range places {
					r := markRadius + 1
					cost += 10 * overlap(box, vg.Rectangle{
						Min: vg.Point{X: other.at.X - r, Y: other.at.Y - r},
						Max: vg.Point{X: other.at.X + r, Y: other.at.Y + r},
					})
					if j != i && placed[j] {
						cost += 10 * overlap(box, boxes[j])
					}
				}
				if cost < bestCost {
					best, bestCost = box, cost
				}
			}
			boxes[i], placed[i] = best, true
		}
	}
	return boxes
}

// candidates are boxes around a point, the preferred ones first: beside it,
// above and below, at the corners, then farther away.
func candidates(p place) []vg.Rectangle {
	var out []vg.Rectangle
	for _, gap := range []vg.Length{3, 11, 20, 30, 42} {
		d := markRadius + gap
		for _, side := range []struct{ x, y vg.Length }{
			{1, 0}, {-1, 0}, {0, 1}, {0, -1}, {1, 1}, {1, -1}, {-1, 1}, {-1, -1},
		} {
			low := vg.Point{
				X: p.at.X - p.width/2 + side.x*(p.width/2+d),
				Y: p.at.Y - p.height/2 + side.y*(p.height/2+d),
			}
			if side.x != 0 && side.y != 0 { // a corner touches sooner
				low.X -= side.x * d * 0.6
				low.Y -= side.y * d * 0.3
			}
			out = append(out, vg.Rectangle{Min: low, Max: vg.Point{X: low.X + p.width, Y: low.Y + p.height}})
		}
	}
	return out
}

// overlap is the area two boxes share, in square points.
func overlap(a, b vg.Rectangle) float64 {
	w := min(a.Max.X, b.Max.X) - max(a.Min.X, b.Min.X)
	h := min(a.Max.Y, b.Max.Y) - max(a.Min.Y, b.Min.Y)
	if w <= 0 || h <= 0 {
		return 0
	}
	return float64(w * h)
}

// outside is how much of a box lies beyond the area.
func outside(box, area vg.Rectangle) float64 {
	size := box.Size()
	return float64(size.X*size.Y) - overlap(box, area)
}

// nearest is the point of a box closest to p.
func nearest(box vg.Rectangle, p vg.Point) vg.Point {
	return vg.Point{
		X: min(max(p.X, box.Min.X), box.Max.X),
		Y: min(max(p.Y, box.Min.Y), box.Max.Y),
	}
}

func distance(a, b vg.Point) vg.Length {
	return vg.Length(math.Hypot(float64(a.X-b.X), float64(a.Y-b.Y)))
}
