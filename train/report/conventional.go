package report

import "strconv"

// conventional names the approaches that the article "Understanding Parameter-Efficient Finetuning of Large Language
// Models" (section 2) sets beside each other before it comes to PEFT.
var conventional = map[string]string{
	"logreg":  "feature-based, with logistic regression",
	"forest":  "feature-based, with random forest",
	"xgboost": "feature-based, with XGBoost",
	"last":    "finetuning I, updating the output layers",
	"full":    "finetuning II, updating all layers",
}

// conventionalTable is the article's table of the approaches that were compared, nil where there are less than two.
func conventionalTable(results []Result) [][]string {
	lines := [][]string{{"conventional approach", "training accuracy", "validation accuracy", "test accuracy"}}
	for _, r := range results {
		if name, ok := conventional[r.Method]; ok && r.Loss == nil {
			lines = append(lines, []string{name, percent(r.TrainAcc), percent(r.ValAcc), percent(r.TestAcc)})
		}
	}
	if len(lines) < 3 {
		return nil
	}
	return lines
}

func percent(share float64) string {
	if !isFinite(share) {
		return pretty(share, 1)
	}
	return strconv.FormatFloat(100*share, 'f', 1, 64) + " %"
}
