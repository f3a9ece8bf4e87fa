package classic

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
)

// object is a JSON object. What is not looked into stays as it is written. Encoded again, no key of what was looked into
// stands there twice, so that another reader sees what was checked.
type object map[string]json.RawMessage

func readObject(text []byte) (object, error) {
	if err := checkDepth(text); err != nil {
		return nil, err
	}
	var o object
	if err := json.Unmarshal(text, &o); err != nil {
		return nil, err
	}
	return o, nil
}

// checkDepth refuses values nested deeper than any of XGBoost's: its reader calls itself for each.
func checkDepth(text []byte) error {
	const most = 32
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > most {
				return fmt.Errorf("values nested deeper than %d", most)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

// get reads the value of a key.
func (o object) get(key string, to any) error {
	raw, ok := o[key]
	if !ok {
		return fmt.Errorf("%s is missing", key)
	}
	if err := json.Unmarshal(raw, to); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// number reads a number that is written as text.
func (o object) number(key string, from, to int) (int, error) {
	var text string
	if err := o.get(key, &text); err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < from || n > to {
		return 0, fmt.Errorf("%s is %q, want a number from %d to %d", key, text, from, to)
	}
	return n, nil
}

// put gives a key a value.
func (o object) put(key string, value any) (err error) {
	o[key], err = encodeJSON(value)
	return err
}

// within gives the object that a key has to look, and puts it back.
func (o object) within(key string, look func(object) error) error {
	var inner object
	if err := o.get(key, &inner); err != nil {
		return err
	}
	if err := look(inner); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return o.put(key, inner)
}

// withAttributes is a model of XGBoost's with these attributes and no others.
func (o object) withAttributes(all map[string]string) ([]byte, error) {
	o = maps.Clone(o)
	if err := o.within("learner", func(l object) error { return l.put("attributes", all) }); err != nil {
		return nil, err
	}
	return encodeJSON(o)
}

// encodeJSON leaves < and > as they are: XGBoost reads no \u escapes.
func encodeJSON(value any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(value)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}
