//go:build !cgo

package xgboost

import "errors"

// Without cgo no library can be opened, and nothing below is reached.
var errNoCgo = errors.New("this program was built without cgo: it cannot open XGBoost's library")

// Library is XGBoost's, opened.
type Library struct {
	Path    string
	Version [3]int
}

// Booster is a trained model.
type Booster struct{}

type matrix struct{}

// Open opens the library that Find finds.
func Open() (*Library, error) { return nil, errNoCgo }

// Load makes a booster of XGBoost's JSON.
func (l *Library) Load([]byte) (*Booster, error) { return nil, errNoCgo }

// Predict gives what the model says of each row.
func (b *Booster) Predict(Data, int, int) ([]float32, error) { return nil, errNoCgo }

// Close frees the booster.
func (b *Booster) Close() error { return errNoCgo }

func (l *Library) listen() error                           { return errNoCgo }
func (l *Library) newMatrix(Data, int) (*matrix, error)    { return nil, errNoCgo }
func (l *Library) newBooster(...*matrix) (*Booster, error) { return nil, errNoCgo }
func (m *matrix) close() error                             { return errNoCgo }
func (b *Booster) free() error                             { return errNoCgo }
func (b *Booster) set(string, string) error                { return errNoCgo }
func (b *Booster) update(int, *matrix) error               { return errNoCgo }
func (b *Booster) evaluate(int, *matrix) (string, error)   { return "", errNoCgo }
func (b *Booster) save() ([]byte, error)                   { return nil, errNoCgo }
func heard() []string                                      { return nil }
