package report

import (
	"cmp"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// PlotCompare draws the accuracy of the methods, or the loss of language
// models, against their trainable parameters and against their training time,
// both on logarithmic axes, as a PNG file. It is the test's figure or, where
// no method has one, the validation's. Methods without it, or without the other figure, are left out
// of the panel; those without trainable parameters stand at its left edge.
// Beside the parameters, the area of a point's disc is its training time.
func PlotCompare(path, title string, results []Result) error {
	test, val := func(r Result) float64 { return 100 * r.TestAcc }, func(r Result) float64 { return 100 * r.ValAcc }
	name := "accuracy (%)"
	if haveLosses(results) {
		test, val = func(r Result) float64 { return r.losses().test }, func(r Result) float64 { return r.losses().val }
		name = "loss"
	}
	score, part := val, "validation"
	if slices.ContainsFunc(results, func(r Result) bool { return isFinite(test(r)) }) {
		score, part = test, "test"
	}
	name = part + " " + name
	seconds := func(r Result) float64 { return r.Seconds }
	parameters := comparePanel("trainable parameters (disc: training time)", name, results, score,
		func(r Result) float64 { return float64(r.Trainable) }, seconds, true)
	return drawPanels(path, title, nil, parameters,
		comparePanel("training time (s)", name, results, score, seconds, nil, false))
}

func comparePanel(xName, yName string, results []Result, score, cost, area func(Result) float64, showZero bool) *plot.Plot {
	p := newPlot(xName, yName)
	var marks []mark
	low, high := math.Inf(1), math.Inf(-1)
	bottom, top := math.Inf(1), math.Inf(-1)
	zeros := false
	for i, r := range results {
		m := mark{x: cost(r), y: score(r), label: r.Method, style: i}
		if !isFinite(m.x) || !isFinite(m.y) || m.x < 0 || m.x == 0 && !showZero {
			continue
		}
		if area != nil {
			m.area = area(r)
		}
		if m.x > 0 {
			low, high = min(low, m.x), max(high, m.x)
		}
		zeros = zeros || m.x == 0
		bottom, top = min(bottom, m.y), max(top, m.y)
		marks = append(marks, m)
	}
	if low > high {
		low, high = 1, 10
	}
	if len(marks) == 0 {
		bottom, top = 0, 100
	}

	ticks := logTicks{}
	if zeros {
		ticks.zero = math.Pow(10, math.Floor(math.Log10(low))-1)
		low = ticks.zero
		for i := range marks {
			marks[i].x = max(marks[i].x, ticks.zero)
		}
	}
	p.X.Scale = plot.LogScale{}
	p.X.Tick.Marker = ticks
	// At least a decade, and room for labels beside the outer points, more on
	// the right, where most labels go.
	if widen := math.Sqrt(10 / (high / low)); widen > 1 {
		low, high = low/widen, high*widen
	}
	span := math.Log10(high / low)
	p.X.Min, p.X.Max = low/math.Pow(10, 0.08*span), high*math.Pow(10, 0.2*span)
	margin := max(0.12*(top-bottom), 0.005*top)
	p.Y.Min, p.Y.Max = bottom-margin, top+margin
	p.Add(marked(marks))
	return p
}

// mark is a labelled point.
type mark struct {
	x, y  float64
	label string
	style int // colour and shape
	area  float64
}

// marked draws labelled points and finds room for the labels.
type marked []mark

// Plot implements plot.Plotter.
func (ms marked) Plot(c draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&c)
	places := make([]place, len(ms))
	for i, m := range ms {
		style := textStyle(9, ink)
		extent := style.Rectangle(m.label).Size()
		places[i] = place{at: vg.Point{X: toX(m.x), Y: toY(m.y)}, width: extent.X, height: style.FontExtents().Ascent}
	}
	boxes := placeLabels(places, c.Rectangle)
	ms.drawDiscs(&c, places)
	for i, m := range ms {
		colour := series[m.style%len(series)]
		shape := shapes[m.style/len(series)%len(shapes)]
		box := boxes[i]
		if near := nearest(box, places[i].at); distance(near, places[i].at) > 1.8*markRadius {
			c.StrokeLine2(draw.LineStyle{Color: fade(colour, 0xa0), Width: 0.6}, places[i].at.X, places[i].at.Y, near.X, near.Y)
		}
		// Seen through, so that a point behind another shows.
		c.DrawGlyph(draw.GlyphStyle{Color: fade(colour, 0xc0), Radius: markRadius, Shape: shape}, places[i].at)
		style := textStyle(9, ink)
		style.XAlign, style.YAlign = text.XLeft, text.YBottom
		c.FillText(style, box.Min, m.label)
	}
}

// drawDiscs draws the areas of the marks, the largest at the bottom. What is smaller than a mark itself is left out.
func (ms marked) drawDiscs(c *draw.Canvas, places []place) {
	largest := 0.0
	order := make([]int, 0, len(ms))
	for i, m := range ms {
		if isFinite(m.area) {
			largest = max(largest, m.area)
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(ms[b].area, ms[a].area) })
	for _, i := range order {
		if radius := mostRadius * vg.Length(math.Sqrt(ms[i].area/largest)); radius > markRadius {
			c.DrawGlyph(draw.GlyphStyle{Color: fade(series[ms[i].style%len(series)], 0x38), Radius: radius, Shape: draw.CircleGlyph{}}, places[i].at)
		}
	}
}

var shapes = []draw.GlyphDrawer{draw.CircleGlyph{}, draw.BoxGlyph{}, draw.PyramidGlyph{}}
