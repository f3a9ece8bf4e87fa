package metrics

import (
	"cmp"
	"math"
	"slices"
)

// Figure is a score and its name.
type Figure struct {
	Name  string
	Value float64
	Less  bool // less is better
}

// Names of figures that others ask for.
const (
	MSE            = "mse"
	SubsetAccuracy = "subset_accuracy"
)

// Regression scores predicted numbers against wanted ones, both [rows][targets]: the mean squared and absolute error, Pearson's
// and Spearman's correlation and the coefficient of determination R², each a mean over the targets, as scikit-learn and scipy
// define them. A correlation or R² is NaN where all the numbers of a side are the same, or there are fewer than two.
func Regression(want, got [][]float32) []Figure {
	f := []Figure{{MSE, 0, true}, {"mae", 0, true}, {"pearson", 0, false}, {"spearman", 0, false}, {"r2", 0, false}}
	targets := 0
	if len(want) > 0 {
		targets = len(want[0])
	}
	for k := range targets {
		a, b := column(want, k), column(got, k)
		n, mse, mae := float64(len(a)), 0.0, 0.0
		for i := range a {
			d := a[i] - b[i]
			mse += d * d / n
			mae += math.Abs(d) / n
		}
		_, spread := moments(a)
		for i, v := range []float64{mse, mae, pearson(a, b), pearson(ranks(a), ranks(b)), 1 - mse*n/spread} {
			if i == 4 && spread == 0 {
				v = math.NaN()
			}
			f[i].Value += v / float64(targets)
		}
	}
	if targets == 0 {
		for i := range f {
			f[i].Value = math.NaN()
		}
	}
	return f
}

func column(rows [][]float32, k int) []float64 {
	out := make([]float64, len(rows))
	for i, r := range rows {
		out[i] = float64(r[k])
	}
	return out
}

// moments are the mean, and the sum of squared distances from it.
func moments(v []float64) (mean, spread float64) {
	for _, x := range v {
		mean += x / float64(len(v))
	}
	for _, x := range v {
		spread += (x - mean) * (x - mean)
	}
	return mean, spread
}

func pearson(a, b []float64) float64 {
	ma, sa := moments(a)
	mb, sb := moments(b)
	sum := 0.0
	for i := range a {
		sum += (a[i] - ma) * (b[i] - mb)
	}
	if sa == 0 || sb == 0 {
		return math.NaN()
	}
	return max(-1, min(1, sum/math.Sqrt(sa*sb)))
}

// ranks are the places of values in their order, the mean of those that equal ones share.
func ranks(v []float64) []float64 {
	order := make([]int, len(v))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int { return cmp.Compare(v[i], v[j]) })
	out := make([]float64, len(v))
	for from := 0; from < len(order); {
		to := from
		for to < len(order) && v[order[to]] == v[order[from]] {
			to++
		}
		for _, i := range order[from:to] {
			out[i] = float64(from+to-1) / 2
		}
		from = to
	}
	return out
}

// MultiLabel scores the labels chosen for rows against those they have, both [rows][labels]: F1 over all decisions, the mean of
// the labels' own F1 and the share of rows whose labels are all right, as scikit-learn defines them. The F1 of a label that is
// nowhere is 0.
func MultiLabel(want, got [][]bool) []Figure {
	labels := 0
	if len(want) > 0 {
		labels = len(want[0])
	}
	right, had, chose := make([]int, labels), make([]int, labels), make([]int, labels)
	exact := 0
	for i := range want {
		if slices.Equal(want[i], got[i]) {
			exact++
		}
		for k := range labels {
			if want[i][k] {
				had[k]++
			}
			if got[i][k] {
				chose[k]++
			}
			if want[i][k] && got[i][k] {
				right[k]++
			}
		}
	}
	sum, all := 0.0, [3]int{}
	for k := range labels {
		sum += ratio(2*right[k], had[k]+chose[k])
		all[0], all[1], all[2] = all[0]+right[k], all[1]+had[k], all[2]+chose[k]
	}
	return []Figure{{"micro_f1", ratio(2*all[0], all[1]+all[2]), false}, {"macro_f1", sum / float64(max(1, labels)), false},
		{SubsetAccuracy, ratio(exact, len(want)), false}}
}
