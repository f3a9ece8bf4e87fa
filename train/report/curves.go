package report

import (
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// PlotCurves draws loss and accuracy over the steps of a run as a PNG file.
// The training curve is shown as logged and smoothed, with a square for the
// mean of each epoch; the validation curve with a dot per evaluation, the best
// one ringed; thin vertical lines mark evaluations. Without any accuracy the
// loss stands alone.
func PlotCurves(path, title string, rows []Row) error {
	legend := curvesLegend{}
	panels := []*plot.Plot{curvesPanel(rows, &legend, figure{
		name: "loss", scale: 1, best: lowest,
		train: func(r Row) float64 { return r.TrainLoss },
		epoch: func(r Row) float64 { return r.EpochTrainLoss },
		val:   func(r Row) float64 { return r.ValLoss },
	})}
	hasAccuracy := false
	for _, r := range rows {
		hasAccuracy = hasAccuracy || isFinite(r.TrainAcc) || isFinite(r.EpochTrainAcc) || isFinite(r.ValAcc)
	}
	if hasAccuracy {
		panels = append(panels, curvesPanel(rows, &legend, figure{
			name: "accuracy (%)", scale: 100, best: highest,
			train: func(r Row) float64 { return r.TrainAcc },
			epoch: func(r Row) float64 { return r.EpochTrainAcc },
			val:   func(r Row) float64 { return r.ValAcc },
		}))
	}
	return drawPanels(path, title, legend.entries(), panels...)
}

// figure is what a panel shows: a figure of a run over its steps.
type figure struct {
	name              string
	scale             float64 // what a row's value is multiplied by
	train, epoch, val func(Row) float64
	best              func(plotter.XYs) int // the point to ring
}

// Styles of the curves.
const curveWidth = 1.8

func trainStyle() draw.LineStyle    { return draw.LineStyle{Color: blue, Width: curveWidth} }
func rawTrainStyle() draw.LineStyle { return draw.LineStyle{Color: fade(blue, 0x50), Width: 0.8} }
func valStyle() draw.LineStyle      { return draw.LineStyle{Color: orange, Width: curveWidth} }

func valDot() draw.GlyphStyle {
	return draw.GlyphStyle{Color: orange, Radius: 3, Shape: draw.CircleGlyph{}}
}

func epochSquare() draw.GlyphStyle {
	return draw.GlyphStyle{Color: blue, Radius: 2.5, Shape: draw.BoxGlyph{}}
}

func bestRing() draw.GlyphStyle {
	return draw.GlyphStyle{Color: orange, Radius: 6, Shape: draw.RingGlyph{}}
}

// curvesLegend knows which kinds of curves the panels have.
type curvesLegend struct{ plain, smooth, epochs, val bool }

func (l curvesLegend) entries() []legendEntry {
	train, raw, val, dot, ring, square := trainStyle(), rawTrainStyle(), valStyle(), valDot(), bestRing(), epochSquare()
	var out []legendEntry
	if l.smooth {
		out = append(out, legendEntry{"train", &raw, nil}, legendEntry{"train, smoothed", &train, nil})
	} else if l.plain {
		out = append(out, legendEntry{"train", &train, nil})
	}
	if l.epochs {
		out = append(out, legendEntry{"train, mean of an epoch", nil, &square})
	}
	if l.val {
		out = append(out, legendEntry{"validation", &val, &dot}, legendEntry{"best", nil, &ring})
	}
	return out
}

// curvesPanel draws one figure's training and validation curve.
func curvesPanel(rows []Row, legend *curvesLegend, f figure) *plot.Plot {
	p := newPlot("step", f.name)
	p.X.Tick.Marker = countTicks{}

	trainPoints, epochPoints, valPoints := points(rows, f.scale, f.train), points(rows, f.scale, f.epoch), points(rows, f.scale, f.val)
	p.Add(verticals(valPoints))
	const smoothFrom = 12 // a line of fewer points is clear as it is
	switch n := len(trainPoints); {
	case n >= smoothFrom:
		legend.smooth = true
		p.Add(line(trainPoints, rawTrainStyle()), line(smoothed(trainPoints), trainStyle()))
	case n > 1:
		legend.plain = true
		p.Add(line(trainPoints, trainStyle()))
	case n == 1:
		legend.plain = true
		p.Add(dots(trainPoints, draw.GlyphStyle{Color: blue, Radius: 3, Shape: draw.CircleGlyph{}}))
	}
	if len(epochPoints) > 0 {
		legend.epochs = true
		p.Add(dots(epochPoints, epochSquare()))
	}
	if len(valPoints) > 0 {
		legend.val = true
		p.Add(line(valPoints, valStyle()), dots(valPoints, valDot()), dots(valPoints[f.best(valPoints):][:1], bestRing()))
	}

	all := slices.Concat(trainPoints, epochPoints, valPoints)
	p.X.Min, p.X.Max = 0, 1
	p.Y.Min, p.Y.Max = math.Inf(1), math.Inf(-1)
	for _, v := range all {
		p.X.Max = max(p.X.Max, v.X)
		p.Y.Min, p.Y.Max = min(p.Y.Min, v.Y), max(p.Y.Max, v.Y)
	}
	if len(all) == 0 {
		p.Y.Min, p.Y.Max = 0, 1
	}
	margin := max(0.05*(p.Y.Max-p.Y.Min), 1e-3*math.Abs(p.Y.Max), 1e-6)
	p.Y.Min, p.Y.Max = p.Y.Min-margin, p.Y.Max+margin
	return p
}

// points are the steps and values of the rows that have a figure.
func points(rows []Row, scale float64, get func(Row) float64) plotter.XYs {
	var out plotter.XYs
	for _, r := range rows {
		if v := get(r); isFinite(v) {
			out = append(out, plotter.XY{X: float64(r.Step), Y: v * scale})
		}
	}
	return out
}

func isFinite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// smoothed is the exponential moving mean over about a twentieth of the
// points. Dividing by the sum of the weights keeps the first values from
// counting more than the rest.
func smoothed(points plotter.XYs) plotter.XYs {
	decay := 1 - 1/max(3, float64(len(points))/20)
	out := make(plotter.XYs, len(points))
	mean, weight := 0.0, 0.0
	for i, v := range points {
		mean = decay*mean + (1-decay)*v.Y
		weight = decay*weight + (1 - decay)
		out[i] = plotter.XY{X: v.X, Y: mean / weight}
	}
	return out
}

func line(points plotter.XYs, style draw.LineStyle) *plotter.Line {
	return &plotter.Line{XYs: thinned(points), LineStyle: style}
}

// mostPoints is about how many points a line has: more than a picture shows, and few enough to draw, which takes time that
// grows with their square.
const mostPoints = 4000

// thinned is a line of few points in place of one of many: of every stretch the lowest and the highest, in their order.
func thinned(points plotter.XYs) plotter.XYs {
	n := len(points)
	if n <= mostPoints {
		return points
	}
	out := make(plotter.XYs, 0, mostPoints)
	for k := range mostPoints / 2 {
		part := points[k*n/(mostPoints/2) : (k+1)*n/(mostPoints/2)]
		low, high := lowest(part), highest(part)
		out = append(out, part[min(low, high)])
		if low != high {
			out = append(out, part[max(low, high)])
		}
	}
	return out
}

func dots(points plotter.XYs, style draw.GlyphStyle) *plotter.Scatter {
	return &plotter.Scatter{XYs: points, GlyphStyle: style}
}

func lowest(points plotter.XYs) int {
	best := 0
	for i, v := range points {
		if v.Y < points[best].Y {
			best = i
		}
	}
	return best
}

func highest(points plotter.XYs) int {
	best := 0
	for i, v := range points {
		if v.Y > points[best].Y {
			best = i
		}
	}
	return best
}

// verticals draws a thin line at every point's x.
type verticals plotter.XYs

// Plot implements plot.Plotter.
func (v verticals) Plot(c draw.Canvas, p *plot.Plot) {
	const most = 40 // beyond, the lines would be a grey area
	if len(v) > most {
		return
	}
	toX, _ := p.Transforms(&c)
	style := draw.LineStyle{Color: fade(grey, 0x90), Width: 0.5, Dashes: []vg.Length{2, 3}}
	for _, point := range v {
		c.StrokeLine2(style, toX(point.X), c.Min.Y, toX(point.X), c.Max.Y)
	}
}
