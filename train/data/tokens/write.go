package tokens

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"gopeft/model/fsutil"
)

// Options says what a file is to hold.
type Options struct {
	Vocab   int  // token ids are below it; 0: not known
	Causal  bool // examples have targets, else labels
	Sources bool // examples are from several sources
}

// Example is one example of a part.
type Example struct {
	IDs     []int64
	Targets []int64 // of a language model's data: as long as IDs
	Label   int     // of a classifier's
	Source  int     // index of the file it is from, with Options.Sources
}

// Writer writes a file, part by part. It holds nothing of what was added.
type Writer struct {
	w      *bufio.Writer
	dir    string // for what a part's lists hold until it ends
	sum    hash.Hash
	at     int64
	header header
	opts   Options
	lists  []*list // of the part begun
	buf    []byte
}

// list holds numbers, one per example, in a file without a name.
type list struct {
	f  *os.File
	w  *bufio.Writer
	to func(*part) *section
}

// newWriter writes to w; dir is for temporary files.
func newWriter(w io.Writer, dir, key string) (*Writer, error) {
	x := &Writer{dir: dir, sum: sha256.New(), header: header{Key: key, Width: 4}}
	x.w = bufio.NewWriterSize(io.MultiWriter(w, x.sum), 1<<18)
	return x, x.write([]byte(magic))
}

func (x *Writer) write(b []byte) error {
	n, err := x.w.Write(b)
	x.at += int64(n)
	return err
}

// Describe says what the file holds; it comes before the first part.
func (x *Writer) Describe(opts Options, info Info) {
	x.opts, x.header.Causal, x.header.Info = opts, opts.Causal, info
	if x.header.Width = 4; opts.Vocab > 0 && opts.Vocab <= 1<<16 {
		x.header.Width = 2
	}
}

// Begin begins a part.
func (x *Writer) Begin(name string) error {
	if len(x.lists) > 0 {
		return errors.New("a part has not ended")
	}
	x.header.Parts = append(x.header.Parts, part{Name: name, Records: section{At: x.at}})
	kinds := []func(*part) *section{func(p *part) *section { return &p.Lengths }, func(p *part) *section { return &p.Ends }}
	kinds = append(kinds, func(p *part) *section { return &p.Labels }, func(p *part) *section { return &p.Sources })
	for _, to := range kinds {
		f, err := fsutil.Nameless(x.dir)
		if err != nil {
			return err
		}
		x.lists = append(x.lists, &list{f, bufio.NewWriterSize(f, 1<<16), to})
	}
	return nil
}

// Add adds an example to the part begun.
func (x *Writer) Add(e Example) error {
	if len(x.lists) == 0 {
		return errors.New("no part has begun")
	}
	var err error
	targets := e.Targets
	if !x.opts.Causal {
		targets = nil
	} else if targets == nil {
		targets = []int64{}
	}
	if x.buf, err = appendRecord(x.buf[:0], x.header.Width, e.IDs, targets); err != nil {
		return err
	}
	p := &x.header.Parts[len(x.header.Parts)-1]
	if err := x.write(x.buf); err != nil {
		return err
	}
	p.Count++
	var number [8]byte
	put := func(list, size int, v uint64) {
		if err == nil {
			binary.LittleEndian.PutUint64(number[:], v)
			_, err = x.lists[list].w.Write(number[:size])
		}
	}
	put(0, 4, uint64(len(e.IDs)))
	put(1, 8, uint64(x.at-p.Records.At))
	if !x.opts.Causal {
		put(2, 4, uint64(uint32(int32(e.Label))))
	}
	if x.opts.Sources {
		put(3, 4, uint64(e.Source))
	}
	return err
}

// End ends the part; hash is of its examples before they were tokens.
func (x *Writer) End(hash string) error {
	if len(x.lists) == 0 {
		return errors.New("no part has begun")
	}
	p := &x.header.Parts[len(x.header.Parts)-1]
	p.Hash, p.Records.Size = hash, x.at-p.Records.At
	var errs []error
	for _, l := range x.lists {
		errs = append(errs, x.copy(l, p))
	}
	x.lists = nil
	return errors.Join(errs...)
}

// copy puts a list into the body, and frees it.
func (x *Writer) copy(l *list, p *part) error {
	err := l.w.Flush()
	if err == nil {
		_, err = l.f.Seek(0, io.SeekStart)
	}
	var n int64
	if err == nil {
		n, err = io.Copy(x.w, l.f)
	}
	*l.to(p) = section{At: x.at, Size: n}
	x.at += n
	return errors.Join(err, l.f.Close())
}

// finish writes what stands behind the body.
func (x *Writer) finish() error {
	if len(x.lists) > 0 {
		return errors.New("a part has not ended")
	}
	raw, err := json.Marshal(x.header)
	if err != nil {
		return err
	}
	if len(raw) > mostHeader {
		return fmt.Errorf("a header of %d bytes", len(raw))
	}
	if err := errors.Join(x.write(raw), x.write(binary.LittleEndian.AppendUint64(nil, uint64(len(raw)))), x.w.Flush()); err != nil {
		return err
	}
	if err := errors.Join(x.write(x.sum.Sum(nil)), x.write([]byte(magic))); err != nil {
		return err
	}
	return x.w.Flush()
}

// abandon frees what a part that was begun holds.
func (x *Writer) abandon() {
	for _, l := range x.lists {
		l.f.Close()
	}
	x.lists = nil
}
