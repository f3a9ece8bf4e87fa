// Package classic trains the classifiers that feature-based classification puts
// on a frozen model's hidden states: L2-regularised logistic regression, a
// random forest and boosted trees. The first two follow scikit-learn's
// defaults, so that figures can be compared: the regression, by gonum's L-BFGS,
// comes to the same coefficients, the forest grows the same kind of trees from
// its own random numbers. Boosted trees are trained by XGBoost's own library
// (package xgboost), which need not be there until one is asked for.
//
//	model, err := classic.FitLogisticRegression(ctx, x, labels, len(names), classic.LogisticOptions{})
//	if err != nil {
//		return err
//	}
//	predicted, err := model.Predict(ctx, test)
//	...
//	err = classic.Save("run/classifier.safetensors", classic.Saved{Model: model, Labels: names})
//
// Features are a row-major float32 [Matrix], labels are integers from 0.
// Everything runs on all cores unless Workers says otherwise, and stops soon
// after its context is done. Boosted trees' last bits hang on the number of
// threads; the other results do not.
//
// # Terms
//
//   - features: the columns of a matrix, here a model's hidden states
//   - output: a linear function of the features; one for each class that the training data had, or a single one for two
//   - penalty: 1 / (C · rows), the weight of the squared coefficients beside the mean cross-entropy
//   - chunk: the rows whose losses are added up in order, so that sums do not depend on the number of threads
//   - rank: the place of a value among the distinct values of its column; trees compare ranks
//   - grower: the working memory of one thread that grows trees
//   - round: the boosted trees that one step adds, one for each output
//   - pure leaf: a leaf whose training rows are of one class; mixed leaf: one that holds a share of each class
package classic
