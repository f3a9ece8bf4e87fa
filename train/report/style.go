package report

import (
	"fmt"
	"image/color"
	"io"
	"math"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	xfont "golang.org/x/image/font"

	"gopeft/model/fsutil"
)

// Colours that stay apart for the colour-blind too (M. Okabe and K. Ito).
var (
	blue   = color.NRGBA{0x00, 0x72, 0xb2, 0xff}
	orange = color.NRGBA{0xd5, 0x5e, 0x00, 0xff}
	ink    = color.NRGBA{0x22, 0x22, 0x22, 0xff}
	grey   = color.NRGBA{0x88, 0x88, 0x88, 0xff}
	faint  = color.NRGBA{0xe6, 0xe6, 0xe6, 0xff}

	series = []color.NRGBA{
		blue, orange,
		{0x00, 0x9e, 0x73, 0xff}, // green
		{0xcc, 0x79, 0xa7, 0xff}, // purple
		{0xe6, 0x9f, 0x00, 0xff}, // amber
		{0x56, 0xb4, 0xe9, 0xff}, // sky
		{0x55, 0x55, 0x55, 0xff}, // grey
	}
)

func fade(c color.NRGBA, alpha uint8) color.NRGBA {
	c.A = alpha
	return c
}

func sans(size vg.Length, weight xfont.Weight) font.Font {
	return font.Font{Typeface: "Liberation", Variant: "Sans", Size: size, Weight: weight}
}

func textStyle(size vg.Length, c color.Color) text.Style {
	return text.Style{Color: c, Font: sans(size, xfont.WeightNormal), Handler: plot.DefaultTextHandler}
}

// newPlot returns an empty plot in this package's style.
func newPlot(x, y string) *plot.Plot {
	p := plot.New()
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Label.TextStyle.Font = sans(10, xfont.WeightNormal)
		a.Label.TextStyle.Color = ink
		a.Label.Padding = vg.Points(4)
		a.Tick.Label.Font = sans(9, xfont.WeightNormal)
		a.Tick.Label.Color = ink
		a.LineStyle.Color = grey
		a.Tick.LineStyle.Color = grey
		a.Tick.Length = vg.Points(4)
		a.Padding = vg.Points(4)
	}
	p.X.Label.Text = x
	p.Y.Label.Text = y
	p.Y.Tick.Marker = linearTicks{}

	grid := plotter.NewGrid()
	grid.Vertical.Color = faint
	grid.Horizontal.Color = faint
	p.Add(grid)
	return p
}

// linearTicks labels round values, and as many as there is room for.
type linearTicks struct{}

// Ticks implements plot.Ticker.
func (linearTicks) Ticks(low, high float64) []plot.Tick {
	const about = 6
	step := math.Pow(10, math.Floor(math.Log10((high-low)/about)))
	for _, f := range []float64{1, 2, 5, 10} {
		if (high-low)/(step*f) <= about {
			step *= f
			break
		}
	}
	digits := max(0, int(-math.Floor(math.Log10(step)+1e-9)))
	var ticks []plot.Tick
	for i := math.Ceil(low/step - 1e-9); i*step <= high+1e-9*step; i++ {
		v := i*step + 0 // no negative zero
		ticks = append(ticks, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'f', digits, 64)})
	}
	return ticks
}

// countTicks are linearTicks for whole numbers: 1k, 2.5k.
type countTicks struct{}

// Ticks implements plot.Ticker.
func (countTicks) Ticks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	for _, t := range (linearTicks{}).Ticks(low, high) {
		if t.Value == math.Round(t.Value) && t.Value >= 0 {
			ticks = append(ticks, plot.Tick{Value: t.Value, Label: shortNumber(t.Value)})
		}
	}
	return ticks
}

// logTicks labels powers of ten, and their double and fivefold on a short
// axis; a long one has no ticks between.
type logTicks struct {
	zero float64 // the place on the axis that stands for 0, if any
}

// Ticks implements plot.Ticker.
func (t logTicks) Ticks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	if t.zero > 0 {
		ticks = append(ticks, plot.Tick{Value: t.zero, Label: "none"})
	}
	short, long := high/low < 1e3, high/low > 1e5
	for decade := math.Pow(10, math.Floor(math.Log10(low))); decade <= high; decade *= 10 {
		for f := 1.0; f < 10; f++ {
			v := f * decade
			if v < low*(1-1e-9) || v > high*(1+1e-9) || v <= t.zero*3 || long && f != 1 {
				continue
			}
			tick := plot.Tick{Value: v}
			if f == 1 || short && (f == 2 || f == 5) {
				tick.Label = shortNumber(v)
			}
			ticks = append(ticks, tick)
		}
	}
	return ticks
}

// shortNumber writes 1500 as 1.5k and 2e6 as 2M.
func shortNumber(v float64) string {
	for _, u := range []struct {
		size float64
		sign string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if v >= u.size*(1-1e-9) {
			return strconv.FormatFloat(v/u.size, 'g', 4, 64) + u.sign
		}
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

// Size of one panel of a picture, in points where no unit says otherwise.
const (
	panelWidth   = 14 * vg.Centimeter
	panelHeight  = 10 * vg.Centimeter
	titleHeight  = 30
	legendHeight = 24
	resolution   = 144 // dots per inch
)

// drawPanels writes plots side by side, under a common title and legend, as
// PNG.
func drawPanels(path, title string, legend []legendEntry, panels ...*plot.Plot) (err error) {
	// gonum/plot reports bad ranges and the like by panicking.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("draw %s: %v", path, r)
		}
	}()
	top := vg.Length(titleHeight)
	if len(legend) > 0 {
		top += legendHeight
	}
	width := panelWidth * vg.Length(len(panels))
	img := vgimg.NewWith(vgimg.UseWH(width, panelHeight+top), vgimg.UseDPI(resolution))
	canvas := draw.New(img)

	heading := textStyle(13, ink)
	heading.Font.Weight = xfont.WeightBold
	heading.XAlign, heading.YAlign = text.XCenter, text.YTop
	if room := width - 20; heading.Width(title) > room {
		heading.Font.Size *= room / heading.Width(title)
	}
	canvas.FillText(heading, vg.Point{X: width / 2, Y: canvas.Max.Y - 9}, title)
	drawLegend(draw.Crop(canvas, 0, 0, 0, -titleHeight), legend)

	tiles := draw.Tiles{
		Rows: 1, Cols: len(panels),
		PadTop: top, PadBottom: 8, PadLeft: 8, PadRight: 14, PadX: 22,
	}
	for i, c := range plot.Align([][]*plot.Plot{panels}, tiles, canvas)[0] {
		panels[i].Draw(c)
	}
	return fsutil.WriteFile(path, func(w io.Writer) error {
		_, err := vgimg.PngCanvas{Canvas: img}.WriteTo(w)
		return err
	})
}

// legendEntry is a name with what stands for it.
type legendEntry struct {
	name string
	line *draw.LineStyle
	dot  *draw.GlyphStyle
}

// drawLegend writes the entries on one centred line at the top of a canvas,
// where no curve can run into them.
func drawLegend(c draw.Canvas, entries []legendEntry) {
	const sample, gap, between = 22, 5, 22
	style := textStyle(9, ink)
	style.YAlign = text.YCenter
	total := vg.Length(-between)
	for _, e := range entries {
		total += sample + gap + style.Width(e.name) + between
	}
	x, y := c.Center().X-total/2, c.Max.Y-10
	for _, e := range entries {
		if e.line != nil {
			c.StrokeLine2(*e.line, x, y, x+sample, y)
		}
		if e.dot != nil {
			c.DrawGlyph(*e.dot, vg.Point{X: x + sample/2, Y: y})
		}
		c.FillText(style, vg.Point{X: x + sample + gap, Y: y}, e.name)
		x += sample + gap + style.Width(e.name) + between
	}
}
