package launch

import (
	"fmt"
	"strconv"
)

// vars reads environment variables and keeps the first error.
type vars struct {
	get func(string) string
	err error
}

func (v *vars) fail(format string, args ...any) {
	if v.err == nil {
		v.err = fmt.Errorf(format, args...)
	}
}

func (v *vars) has(name string) bool { return v.get(name) != "" }

// text is a variable that has to be set.
func (v *vars) text(name string) string {
	value := v.get(name)
	if value == "" {
		v.fail("%s is not set, though this is one of several processes", name)
	}
	return value
}

// number is a variable that has to be set, to a whole number of at least least.
func (v *vars) number(name string, least int) int {
	value := v.text(name)
	n, err := strconv.Atoi(value)
	if err != nil {
		v.fail("%s is %q, want a whole number", name, value)
	} else if n < least {
		v.fail("%s is %d, want at least %d", name, n, least)
	}
	return n
}

// optional is a number of at least 0, or what stands for a variable that is not set.
func (v *vars) optional(name string, otherwise int) int {
	if !v.has(name) {
		return otherwise
	}
	return v.number(name, 0)
}

// below is a number from 0 that has to be below another variable's.
func (v *vars) below(name, limitName string, limit int) int {
	n := v.number(name, 0)
	if v.err == nil && n >= limit {
		v.fail("%s is %d, but %s is %d: they count from 0", name, n, limitName, limit)
	}
	return n
}

func (v *vars) port(name string) int {
	n := v.number(name, 1)
	if v.err == nil && n > 65535 {
		v.fail("%s is %d, want a port, at most 65535", name, n)
	}
	return n
}
