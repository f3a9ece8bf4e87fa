package peft

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// perModule compiles rank-pattern and alpha-pattern to the rank and alpha of a map by its name; nil without any.
func (o LoRAOptions) perModule() (func(name string) (rank int, alpha float64), error) {
	if len(o.RankPattern)+len(o.AlphaPattern) == 0 {
		return nil, nil
	}
	ranks, err := readOverrides("rank-pattern", o.RankPattern, func(text string) (int, error) {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 1<<20 {
			return 0, fmt.Errorf("want a rank, 1 to %d", 1<<20)
		}
		return n, nil
	})
	if err != nil {
		return nil, err
	}
	alphas, err := readOverrides("alpha-pattern", o.AlphaPattern, func(text string) (float64, error) {
		v, err := strconv.ParseFloat(text, 64)
		if err != nil || !(v > 0) || math.IsInf(v, 0) {
			return 0, errors.New("want a positive number")
		}
		return v, nil
	})
	if err != nil {
		return nil, err
	}
	rank, err := ranks.of("rank-pattern", o.Rank)
	if err != nil {
		return nil, err
	}
	alpha, err := alphas.of("alpha-pattern", o.Alpha)
	return func(name string) (int, float64) { return rank(name), alpha(name) }, err
}

// readOverrides reads a list of NAME=VALUE.
func readOverrides[T any](flag string, list []string, value func(string) (T, error)) (overrides[T], error) {
	var out overrides[T]
	for _, text := range list {
		at := strings.LastIndex(text, "=")
		if at < 1 {
			return nil, fmt.Errorf("%s: %q is not of the form NAME=VALUE", flag, text)
		}
		v, err := value(text[at+1:])
		if err != nil {
			return nil, fmt.Errorf("%s: %q: %w", flag, text, err)
		}
		out = append(out, override[T]{text[:at], v})
	}
	return out, nil
}

// fitting refuses patterns that none of the names fits.
func (o LoRAOptions) fitting(names []string) error {
	for _, list := range []struct {
		flag     string
		patterns []string
	}{{"rank-pattern", o.RankPattern}, {"alpha-pattern", o.AlphaPattern}} {
		for _, text := range list.patterns {
			pattern := text[:strings.LastIndex(text, "=")] // as complete has read it
			fits, err := overrides[bool]{{pattern, true}}.of(list.flag, false)
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(names, fits) {
				return fmt.Errorf("%s: %q fits none of the maps that are changed (%s, …)", list.flag, pattern, names[0])
			}
		}
	}
	return nil
}

// asOptions gives the overrides that fit one of the names as the options have them.
func (o overrides[T]) asOptions(key string, names []string) (out []string, err error) {
	for _, x := range o {
		fits, err := overrides[bool]{{x.pattern, true}}.of(key, false)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(names, fits) {
			out = append(out, fmt.Sprintf("%s=%v", x.pattern, x.value))
		}
	}
	return out, nil
}
