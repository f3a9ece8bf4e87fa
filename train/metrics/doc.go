// Package metrics scores classifications: a [Confusion] matrix counts labels
// against predictions and gives accuracy, precision, recall and F1 from the
// counts. Scores follow scikit-learn with zero_division=0.
//
//	confusion, err := metrics.Count(labels, predicted, classes)
//	if err != nil {
//		return err
//	}
//	fmt.Println(confusion.Accuracy(), confusion.MacroF1())
package metrics
