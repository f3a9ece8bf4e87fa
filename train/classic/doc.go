// Package classic trains the two classifiers that feature-based classification
// puts on a frozen model's hidden states: L2-regularised logistic regression
// and a random forest. Both follow scikit-learn's defaults, so that figures can
// be compared: the regression walks the same L-BFGS path to the same
// coefficients, the forest grows the same kind of trees from its own random
// numbers.
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
// Everything runs on all cores unless Workers says otherwise, gives the same
// result for any number of them, and stops soon after its context is done.
package classic
