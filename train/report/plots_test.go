package report

import (
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
)

// runRows are the metrics of a run of n logged steps with one evaluation per
// ten of them.
func runRows(n int) []Row {
	var rows []Row
	for i := 1; i <= n; i++ {
		r := NewRow(10*i, float64(i)/10)
		r.TrainLoss = math.Exp(-float64(i)/20) + 0.1*math.Sin(float64(7*i))
		r.TrainAcc = 1 - r.TrainLoss/2
		rows = append(rows, r)
		if i%10 == 0 {
			v := NewRow(10*i, float64(i)/10)
			v.ValLoss = math.Exp(-float64(i)/20) + 0.1
			v.ValAcc = 1 - v.ValLoss/2
			v.EpochTrainLoss, v.EpochTrainAcc = v.ValLoss+0.2, v.ValAcc-0.1
			rows = append(rows, v)
		}
	}
	return rows
}

func decode(t *testing.T, path string) image.Image {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// count returns how many pixels have a colour, to a little.
func count(img image.Image, want color.NRGBA) int {
	n := 0
	near := func(a, b uint8) bool { return max(a, b)-min(a, b) < 12 }
	b := img.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			c := color.NRGBAModel.Convert(img.At(x, y)).(color.NRGBA)
			if near(c.R, want.R) && near(c.G, want.G) && near(c.B, want.B) {
				n++
			}
		}
	}
	return n
}

func TestPlotCurves(t *testing.T) {
	nan := math.NaN()
	noAccuracy := runRows(30)
	for i := range noAccuracy {
		noAccuracy[i].TrainAcc, noAccuracy[i].EpochTrainAcc, noAccuracy[i].ValAcc = nan, nan, nan
	}
	broken := runRows(12)
	broken[3].TrainLoss, broken[4].TrainLoss = math.Inf(1), nan
	onlyEpochs := []Row{NewRow(3, 1), NewRow(6, 2), NewRow(9, 3)}
	for i := range onlyEpochs {
		onlyEpochs[i].EpochTrainLoss, onlyEpochs[i].EpochTrainAcc = 1/float64(i+1), float64(i)/3
	}
	tests := []struct {
		name       string
		rows       []Row
		panels     int
		train, val bool
	}{
		{"a run", runRows(60), 2, true, true},
		{"many evaluations", runRows(1000), 2, true, true},
		{"a few rows", runRows(4), 2, true, false},
		{"one row", runRows(1), 2, true, false},
		{"no accuracy", noAccuracy, 1, true, true},
		{"epochs shorter than a logged window", onlyEpochs, 2, true, false},
		{"infinite loss", broken, 2, true, true},
		{"nothing logged", nil, 1, false, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "curves.png")
			if err := PlotCurves(path, "lora on a model with a name that is far too long to fit on one line in this size of type, isn't it", test.rows); err != nil {
				t.Fatal(err)
			}
			img := decode(t, path)
			if panels := img.Bounds().Dx() / img.Bounds().Dy(); panels != test.panels {
				t.Errorf("picture of %v, want %d panels", img.Bounds().Size(), test.panels)
			}
			if got := count(img, blue) > 20; got != test.train {
				t.Errorf("training curve drawn: %v", got)
			}
			if got := count(img, orange) > 20; got != test.val {
				t.Errorf("validation curve drawn: %v", got)
			}
		})
	}
}

func TestTheMeanOfAnEpochIsNoPointOfTheTrainCurve(t *testing.T) {
	rows := runRows(20)
	curve := points(rows, 1, func(r Row) float64 { return r.TrainLoss })
	if len(curve) != 20 {
		t.Errorf("%d points, want one per logged row", len(curve))
	}
	for i := 1; i < len(curve); i++ {
		if curve[i].X <= curve[i-1].X {
			t.Errorf("two points at step %v", curve[i].X)
		}
	}
}

func TestPlotCompare(t *testing.T) {
	nan := math.NaN()
	onlyVal := results()
	for i := range onlyVal {
		onlyVal[i].TestAcc = nan
	}
	tests := []struct {
		name    string
		results []Result
		first   bool // the first method's point is drawn
	}{
		{"methods", results(), true},
		{"one method", results()[:1], true},
		{"validation only", onlyVal, true},
		{"no figures", []Result{{Method: "lora", TestAcc: nan, ValAcc: nan, Seconds: nan}}, false},
		{"no methods", nil, false},
		{"no parameters at all", results()[1:2], true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "compare.png")
			if err := PlotCompare(path, "a comparison", test.results); err != nil {
				t.Fatal(err)
			}
			// Points are three quarters opaque on white.
			seen := color.NRGBA{0x40, 0x95, 0xc5, 0xff}
			if got := count(decode(t, path), seen) > 50; got != test.first {
				t.Errorf("first method's point drawn: %v", got)
			}
		})
	}
}

// The slowest method's disc is largest; one much faster has none beyond its point.
func TestDiscsShowTrainingTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "compare.png")
	slow := Result{Method: "full", TestAcc: 0.9, Trainable: 1e6, Seconds: 100}
	fast := Result{Method: "lora", TestAcc: 0.8, Trainable: 1e4, Seconds: 1}
	if err := PlotCompare(path, "", []Result{slow, fast}); err != nil {
		t.Fatal(err)
	}
	img := decode(t, path)
	// The colours of the first two series, 0x38/0xff opaque on white.
	if n := count(img, color.NRGBA{0xc7, 0xe0, 0xee, 0xff}); n < 1000 {
		t.Errorf("%d dots of the slow method's disc", n)
	}
	if n := count(img, color.NRGBA{0xf6, 0xdb, 0xc7, 0xff}); n > 50 { // the edge of its point may have some
		t.Errorf("%d dots of a disc about the fast method", n)
	}
}

func TestPicturesIntoAMissingFolderAreAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "no", "curves.png")
	if err := PlotCurves(path, "", runRows(3)); err == nil {
		t.Error("no error")
	}
}

func TestLabelsStayApart(t *testing.T) {
	area := vg.Rectangle{Max: vg.Point{X: 400, Y: 300}}
	var places []place
	for i := range 10 { // a tight cluster, and the corners
		places = append(places, place{at: vg.Point{X: 200 + vg.Length(i%4)*9, Y: 150 + vg.Length(i/4)*11}, width: 40, height: 8})
	}
	for _, corner := range []vg.Point{{X: 1, Y: 1}, {X: 399, Y: 1}, {X: 1, Y: 299}, {X: 399, Y: 299}} {
		places = append(places, place{at: corner, width: 60, height: 8})
	}
	boxes := placeLabels(places, area)
	for i, a := range boxes {
		if outside(a, area) > 0 {
			t.Errorf("label %d is outside: %v", i, a)
		}
		for j, b := range boxes[:i] {
			if o := overlap(a, b); o > 0 {
				t.Errorf("labels %d and %d overlap by %v", i, j, o)
			}
		}
	}
}

func labels(ticks []plot.Tick) []string {
	var out []string
	for _, t := range ticks {
		if t.Label != "" {
			out = append(out, t.Label)
		}
	}
	return out
}

func TestTicks(t *testing.T) {
	tests := []struct {
		name      string
		ticker    plot.Ticker
		low, high float64
		want      []string
	}{
		{"fractions", linearTicks{}, 0.11, 0.9, []string{"0.2", "0.4", "0.6", "0.8"}},
		{"narrow", linearTicks{}, 0.501, 0.524, []string{"0.505", "0.510", "0.515", "0.520"}},
		{"around zero", linearTicks{}, -1.2, 1.2, []string{"-1.0", "-0.5", "0.0", "0.5", "1.0"}},
		{"steps", countTicks{}, 0, 12000, []string{"0", "2k", "4k", "6k", "8k", "10k", "12k"}},
		{"few steps", countTicks{}, 0, 2, []string{"0", "1", "2"}},
		{"decades", logTicks{}, 500, 9e7, []string{"1k", "10k", "100k", "1M", "10M"}},
		{"within decades", logTicks{}, 4, 130, []string{"5", "10", "20", "50", "100"}},
		{"with none", logTicks{zero: 10}, 9, 2e6, []string{"none", "100", "1k", "10k", "100k", "1M"}},
	}
	for _, test := range tests {
		if diff := cmp.Diff(test.want, labels(test.ticker.Ticks(test.low, test.high))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}
