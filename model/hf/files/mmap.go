package files

import (
	"errors"
	"fmt"
	"os"

	"gopeft/model/fsutil"
)

// mapping is one memory-mapped file, or bytes in its place. A tensor library may use
// the pages where they lie: what it writes never reaches the file.
type mapping struct {
	data []byte
	file *fsutil.Mapping // nil for bytes
}

func mapFile(path string) (*mapping, error) {
	f, err := fsutil.OpenRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m, err := fsutil.MapPrivate(f)
	if err != nil {
		return nil, err
	}
	return &mapping{m.Bytes(), m}, nil
}

func (m *mapping) close() error {
	m.data = nil
	return m.file.Close()
}

// view cuts an entry's bytes out of the mapping; the range has been checked.
func (m *mapping) view(e *Entry, offset, size int64) {
	e.Data = m.data[offset : offset+size : offset+size]
	e.source, e.offset = m, offset
}

// Release gives back the memory of pages that lie wholly inside the entry, once
// its data have been converted elsewhere: they no longer count as resident, and
// would be read from the file again if touched. It must not be called while the
// data are used in place and may have been written to. It does nothing for
// entries that own their memory. The pages of Packed go too.
func (e Entry) Release() error {
	var errs []error
	for _, pages := range e.Pages() {
		if err := fsutil.GiveBack(pages); err != nil {
			errs = append(errs, fmt.Errorf("%s: tensor %s: release its pages: %w", e.File, quote(e.Name), err))
		}
	}
	return errors.Join(errs...)
}

// Pages are the pages that Release gives back, as ranges of the mapping.
func (e Entry) Pages() (ranges [][]byte) {
	parts := []Entry{e}
	if e.Packed != nil {
		parts = append(parts, e.Packed.parts()...)
	}
	for _, part := range parts {
		if pages := part.pages(); len(pages) > 0 {
			ranges = append(ranges, pages)
		}
	}
	return ranges
}

// pages are the whole pages among the entry's own bytes, none where they are not mapped.
func (e Entry) pages() []byte {
	if e.source == nil || e.source.data == nil {
		return nil
	}
	page := int64(os.Getpagesize())
	first := (e.offset + page - 1) / page * page
	last := (e.offset + int64(len(e.Data))) / page * page
	if first >= last {
		return nil
	}
	return e.source.data[first:last]
}
