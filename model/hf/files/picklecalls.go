package files

import (
	"errors"
	"fmt"
	"math"
	"strings"
)

// global resolves a name against the allow-list, whether or not it is called.
func (u *unpickler) global(op byte) error {
	var module, name string
	if op == 'c' {
		var err error
		if module, err = u.line(); err != nil {
			return err
		}
		if name, err = u.line(); err != nil {
			return err
		}
	} else {
		pair, err := u.popN(2)
		if err != nil {
			return err
		}
		var ok1, ok2 bool
		module, ok1 = pair[0].(string)
		name, ok2 = pair[1].(string)
		if !ok1 || !ok2 {
			return errors.New("a global's name is not a string")
		}
	}
	full := module + "." + name
	if !pickleGlobal(full) {
		return fmt.Errorf("it refers to %s, which is not a plain tensor constructor and is never run: save the state dict alone, or as safetensors", quote(full))
	}
	u.push(pyGlobal(full))
	return nil
}

func pickleGlobal(full string) bool {
	switch full {
	case "collections.OrderedDict", "torch.Size", "torch.device",
		"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2",
		"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state":
		return true
	}
	if _, ok := storageDType(full); ok {
		return true
	}
	return isTorchDType(full)
}

// storageDType gives the element type of PyTorch's storage classes, those of
// CUDA included: where a tensor lived has no bearing on its bytes.
func storageDType(full string) (DType, bool) {
	class, ok := strings.CutPrefix(full, "torch.")
	if !ok {
		return Invalid, false
	}
	switch strings.TrimPrefix(class, "cuda.") {
	case "DoubleStorage":
		return F64, true
	case "FloatStorage":
		return F32, true
	case "HalfStorage":
		return F16, true
	case "BFloat16Storage":
		return BF16, true
	case "LongStorage":
		return I64, true
	case "IntStorage":
		return I32, true
	case "ShortStorage":
		return I16, true
	case "CharStorage":
		return I8, true
	case "ByteStorage":
		return U8, true
	case "BoolStorage":
		return Bool, true
	}
	return Invalid, false
}

// isTorchDType knows the dtypes that may stand among a checkpoint's settings.
func isTorchDType(full string) bool {
	switch full {
	case "torch.float64", "torch.float32", "torch.float16", "torch.bfloat16",
		"torch.int64", "torch.int32", "torch.int16", "torch.int8", "torch.uint8", "torch.bool":
		return true
	}
	return false
}

// reduce applies an allowed constructor to its arguments.
func (u *unpickler) reduce() error {
	pair, err := u.popN(2)
	if err != nil {
		return err
	}
	function, ok1 := pair[0].(pyGlobal)
	args, ok2 := pair[1].(pyTuple)
	if !ok1 || !ok2 {
		return fmt.Errorf("%s is called with %s", pyKind(pair[0]), pyKind(pair[1]))
	}
	switch function {
	case "collections.OrderedDict":
		d, err := u.orderedDict(args)
		if err != nil {
			return err
		}
		u.push(d)
	case "torch.Size":
		if len(args) != 1 {
			return fmt.Errorf("torch.Size has %d arguments", len(args))
		}
		u.push(args[0])
	case "torch.device":
		u.push(pyOpaque{})
	case "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2":
		t, err := rebuildTensor(args)
		if err != nil {
			return fmt.Errorf("tensor: %w", err)
		}
		u.push(t)
	case "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state":
		if len(args) == 0 {
			return errors.New("a parameter without data")
		}
		t, ok := args[0].(*pyTensor)
		if !ok {
			return fmt.Errorf("a parameter is made of %s", pyKind(args[0]))
		}
		u.push(t)
	default:
		return fmt.Errorf("%s is called", quote(string(function)))
	}
	return nil
}

// orderedDict takes nothing, or the list of pairs that Python 2 wrote. It is the
// one call that copies what it is given, so the copies are counted.
func (u *unpickler) orderedDict(args pyTuple) (*pyDict, error) {
	d := &pyDict{}
	if len(args) == 0 {
		return d, nil
	}
	pairs, ok := args[0].(*pyList)
	if !ok || len(args) > 1 {
		return nil, fmt.Errorf("OrderedDict is called with %d arguments, the first %s", len(args), pyKind(args[0]))
	}
	if u.copied += len(pairs.items); u.copied > maxPickleOps {
		return nil, fmt.Errorf("OrderedDict is called with more than %d items in all", maxPickleOps)
	}
	for _, item := range pairs.items {
		pair, ok := item.(pyTuple)
		if list, isList := item.(*pyList); isList {
			pair, ok = list.items, true
		}
		if !ok || len(pair) != 2 {
			return nil, fmt.Errorf("an item of OrderedDict is %s, not a pair", pyKind(item))
		}
		if err := d.set(pair); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// build would set attributes. PyTorch's state dicts carry their module versions
// that way; nothing of it matters here.
func (u *unpickler) build() error {
	if _, err := u.pop(); err != nil {
		return err
	}
	top, err := u.top()
	if err != nil {
		return err
	}
	switch top.(type) {
	case *pyDict, *pyTensor:
		return nil
	}
	return fmt.Errorf("attributes are set on %s", pyKind(top))
}

// persistent resolves ('storage', class, key, location, count[, view]).
func (u *unpickler) persistent() error {
	id, err := u.pop()
	if err != nil {
		return err
	}
	parts, ok := id.(pyTuple)
	if !ok || len(parts) < 5 || parts[0] != any("storage") {
		return errors.New("a reference outside the pickle is not a storage")
	}
	class, ok1 := parts[1].(pyGlobal)
	key, ok2 := parts[2].(string)
	count, ok3 := parts[4].(int64)
	dtype, ok4 := storageDType(string(class))
	switch {
	case !ok1 || !ok2 || !ok3 || !ok4:
		return fmt.Errorf("the storage reference (%s, %s, %s) is malformed", pyKind(parts[1]), pyKind(parts[2]), pyKind(parts[4]))
	case count < 0 || count > math.MaxInt64/8:
		return fmt.Errorf("storage %s has %d numbers", quote(key), count)
	case len(parts) > 5 && parts[5] != nil:
		return fmt.Errorf("storage %s is a view of another, as PyTorch before 0.4 wrote it: load and save the file with a newer PyTorch", quote(key))
	}
	s, found := u.storages[key]
	if !found {
		s = &pyStorage{key: key, dtype: dtype, count: count}
		u.storages[key] = s
	}
	if s.dtype != dtype || s.count != count {
		return fmt.Errorf("storage %s is %s[%d] here and %s[%d] elsewhere", quote(key), dtype, count, s.dtype, s.count)
	}
	u.push(s)
	return nil
}

// rebuildTensor takes (storage, offset, size, stride, …) and checks that the view
// stays inside the storage.
func rebuildTensor(args pyTuple) (*pyTensor, error) {
	if len(args) < 4 {
		return nil, fmt.Errorf("%d arguments, at least 4 are needed", len(args))
	}
	storage, ok := args[0].(*pyStorage)
	if !ok {
		return nil, fmt.Errorf("its storage is %s", pyKind(args[0]))
	}
	offset, ok := args[1].(int64)
	if !ok || offset < 0 {
		return nil, fmt.Errorf("its storage offset is %s", pyKind(args[1]))
	}
	shape, err := integers(args[2])
	if err != nil {
		return nil, fmt.Errorf("its shape: %w", err)
	}
	stride, err := integers(args[3])
	if err != nil {
		return nil, fmt.Errorf("its strides: %w", err)
	}
	if len(shape) != len(stride) {
		return nil, fmt.Errorf("%d dimensions have %d strides", len(shape), len(stride))
	}
	n, err := elements(shape)
	if err != nil {
		return nil, err
	}
	t := &pyTensor{storage, offset, shape, stride}
	if n > 0 && !t.inside() {
		return nil, fmt.Errorf("the view of shape %v, strides %v and offset %d leaves its storage of %d numbers", shape, stride, offset, storage.count)
	}
	return t, nil
}

func integers(v any) ([]int64, error) {
	tuple, ok := v.(pyTuple)
	if !ok {
		return nil, fmt.Errorf("%s, not a tuple", pyKind(v))
	}
	if len(tuple) > maxDims {
		return nil, fmt.Errorf("%d dimensions, more than %d", len(tuple), maxDims)
	}
	list := make([]int64, len(tuple))
	for i, item := range tuple {
		n, ok := item.(int64)
		if !ok || n < 0 {
			return nil, fmt.Errorf("%s where a size was expected", pyKind(item))
		}
		list[i] = n
	}
	return list, nil
}

// inside tells whether the last element lies in the storage, without overflow.
func (t *pyTensor) inside() bool {
	room := t.storage.count - 1 - t.offset
	for i, size := range t.shape {
		if room < 0 {
			return false
		}
		if steps, stride := size-1, t.stride[i]; steps > 0 && stride > 0 {
			if steps > room/stride {
				return false
			}
			room -= steps * stride
		}
	}
	return room >= 0
}

// pyKind names a value for a message without showing its contents.
func pyKind(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		return "a truth value"
	case int64:
		return fmt.Sprintf("the number %d", v)
	case float64:
		return fmt.Sprintf("the number %g", v)
	case string:
		return quote(v)
	case []byte:
		return "bytes"
	case pyTuple:
		return "a tuple"
	case *pyList:
		return "a list"
	case *pyDict:
		return "a dict"
	case pyGlobal:
		return quote(string(v))
	case *pyTensor:
		return "a tensor"
	case *pyStorage:
		return "a storage"
	}
	return "another value"
}
