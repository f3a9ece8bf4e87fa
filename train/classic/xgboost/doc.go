// Package xgboost is the C API of XGBoost's own library, which is opened when a program asks for it: nothing links
// against it, and it need not be there.
//
//	lib, err := xgboost.Open()
//	if err != nil {
//		return err // says how to get it
//	}
//	trained, err := lib.Train(ctx, training, xgboost.Settings{Params: params, Rounds: 100})
//	...
//	booster, err := lib.Load(trained.Model)
//	defer booster.Close()
//
// The library brings an OpenMP runtime of its own, which libtorch's must not notice: symbols are looked up in what came
// with it first, and every call into it runs on a thread that ends with the call, and its OpenMP threads with that.
//
// A model that comes from outside has to be checked before Load: the library trusts what it is given.
//
// # Terms
//
//   - booster: a model of the library, here an ensemble of trees
//   - round: the trees that one step adds, one for each output
package xgboost
