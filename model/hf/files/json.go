package files

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// jsonReader walks JSON token by token: decoding into a map would
// hide repeated names and accept fractions as numbers.
type jsonReader struct {
	*json.Decoder
}

// object reads {"key": value, ...}; each must consume the value.
func (r jsonReader) object(each func(key string) error) error {
	if err := r.expect('{'); err != nil {
		return err
	}
	for r.More() {
		token, err := r.token()
		if err != nil {
			return err
		}
		key, ok := token.(string)
		if !ok {
			return fmt.Errorf("JSON: %v where a key was expected", token)
		}
		if err := each(key); err != nil {
			return err
		}
	}
	return r.expect('}')
}

func (r jsonReader) token() (json.Token, error) {
	token, err := r.Token()
	if err != nil {
		return nil, fmt.Errorf("JSON: %w", err)
	}
	return token, nil
}

func (r jsonReader) expect(want json.Delim) error {
	token, err := r.token()
	if err != nil {
		return err
	}
	if token != want {
		return fmt.Errorf("JSON: %v where %v was expected", describe(token), want)
	}
	return nil
}

// describe names a token in a message without letting its text run on.
func describe(token json.Token) string {
	switch t := token.(type) {
	case string:
		return quote(t)
	case json.Number:
		return quote(t.String())
	}
	return fmt.Sprint(token)
}

// integers reads an array of at most limit whole, non-negative numbers.
func (r jsonReader) integers(key string, limit int) ([]int64, error) {
	if err := r.expect('['); err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	list := []int64{}
	for r.More() {
		token, err := r.token()
		if err != nil {
			return nil, err
		}
		number, ok := token.(json.Number)
		if !ok {
			return nil, fmt.Errorf("%s holds %s, not a number", key, describe(token))
		}
		n, err := strconv.ParseUint(number.String(), 10, 64)
		if err != nil || n > math.MaxInt64 {
			return nil, fmt.Errorf("%s holds %s, not a whole number from 0 to 2^63-1", key, quote(number.String()))
		}
		if len(list) == limit {
			return nil, fmt.Errorf("%s has more than %d numbers", key, limit)
		}
		list = append(list, int64(n))
	}
	return list, r.expect(']')
}
