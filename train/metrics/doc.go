// Package metrics scores classifications: a [Confusion] matrix counts labels
// against predictions and gives accuracy, precision, recall and F1 from the
// counts. Scores follow scikit-learn with zero_division=0.
//
//	confusion, err := metrics.Count(labels, predicted, classes)
//	if err != nil {
//		return err
//	}
//	fmt.Println(confusion.Accuracy(), confusion.MacroF1())
//
// [Regression] scores numbers, and [MultiLabel] the labels of rows that may have any number of them.
//
// # Terms
//
//   - confusion matrix: how many examples of each class (row) were predicted as each class (column)
//   - precision: of those predicted as a class, the share that are of it
//   - recall: of those of a class, the share that were predicted as it
//   - F1: the harmonic mean of the two
//   - macro: the mean over classes; weighted: that mean by the classes' sizes; micro: over all examples alike
package metrics
