package hub

import (
	"cmp"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"gopeft/model/fsutil"
)

// pull is a repository being fetched.
type pull struct {
	client *Client
	repo   Repo
	dir    string // the repository's in the cache
	commit string

	mu          sync.Mutex
	done, total int64
}

// blob is a file's content as the hub describes it.
type blob struct {
	etag string // its name in the cache: the SHA-256 of large files, git's SHA-1 of others
	size int64  // -1: not said
}

// fetch brings one file into the snapshot.
func (p *pull) fetch(ctx context.Context, name string) error {
	b, err := p.describe(ctx, name)
	if err != nil {
		return err
	}
	p.report(0, max(b.size, 0))
	path := filepath.Join(p.dir, "blobs", b.etag)
	if st, err := os.Stat(path); err != nil || b.size >= 0 && st.Size() != b.size {
		if err := p.fetchLocked(ctx, name, b, path); err != nil {
			return err
		}
	} else {
		p.report(st.Size(), 0)
	}
	return p.link(name, b.etag)
}

// report adds to the bytes that are there and to the total.
func (p *pull) report(done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += done
	p.total += total
	if p.client.Progress != nil {
		p.client.Progress(p.done, p.total)
	}
}

// describe asks for a file's hash and size.
func (p *pull) describe(ctx context.Context, name string) (b blob, err error) {
	c := p.client
	err = c.retry(ctx, func() error {
		ctx, cancel := context.WithTimeout(ctx, c.stall())
		defer cancel()
		resp, err := c.request(ctx, http.MethodHead, c.fileURL(p.repo, p.commit, name), nil, false)
		if err != nil {
			return passing(nil, fmt.Errorf("%s: %s: %w", p.repo.ID, name, unwrapURL(err)))
		}
		resp.Body.Close()
		if err := c.refused(p.repo, name, resp); err != nil {
			return passing(resp, err)
		}
		// A large file's answer is a redirect, with the hash and size of where it leads.
		etag, size := resp.Header.Get("X-Linked-Etag"), resp.Header.Get("X-Linked-Size")
		if etag == "" {
			etag = resp.Header.Get("Etag")
		}
		if size == "" && resp.StatusCode == http.StatusOK {
			size = resp.Header.Get("Content-Length")
		}
		b = blob{etag: strings.Trim(strings.TrimPrefix(etag, "W/"), `"`), size: -1}
		if !etagText.MatchString(b.etag) {
			return fmt.Errorf("%s: %s: the hub gives the hash %q, which is none", p.repo.ID, name, etag)
		}
		if size != "" {
			if b.size, err = strconv.ParseInt(size, 10, 64); err != nil || b.size < 0 {
				return fmt.Errorf("%s: %s: the hub gives the size %q", p.repo.ID, name, size)
			}
		}
		return nil
	})
	return b, err
}

// fetchLocked downloads a blob unless another process does.
func (p *pull) fetchLocked(ctx context.Context, name string, b blob, path string) error {
	locks := filepath.Join(p.client.Cache, ".locks", p.repo.folder())
	if err := os.MkdirAll(locks, 0o777); err != nil {
		return err
	}
	lock := flock.New(filepath.Join(locks, b.etag+".lock"))
	if _, err := lock.TryLockContext(ctx, 100*time.Millisecond); err != nil {
		return fmt.Errorf("%s: %s: waiting for another download of it: %w", p.repo.ID, name, err)
	}
	defer func() { _ = lock.Unlock() }()
	if st, err := os.Stat(path); err == nil && (b.size < 0 || st.Size() == b.size) {
		p.report(st.Size(), 0)
		return nil
	}
	partial := path + ".incomplete"
	resumed := false
	err := p.client.retry(ctx, func() error {
		from, err := p.download(ctx, name, b, partial)
		resumed = resumed || from > 0
		return err
	})
	if err != nil {
		return err
	}
	if err := check(partial, b); err != nil {
		if err := os.Remove(partial); err != nil {
			return err
		}
		if !resumed {
			return fmt.Errorf("%s: %s: %w: the download was damaged", p.repo.ID, name, err)
		}
		// The part that was there may have been another's: once more from the start.
		if err := p.client.retry(ctx, func() error { _, err := p.download(ctx, name, b, partial); return err }); err != nil {
			return err
		}
		if err := check(partial, b); err != nil {
			return errors.Join(fmt.Errorf("%s: %s: %w: the download was damaged", p.repo.ID, name, err), os.Remove(partial))
		}
	}
	return os.Rename(partial, path)
}

// download appends to the partial file what it lacks; from is how much it had.
func (p *pull) download(ctx context.Context, name string, b blob, partial string) (from int64, err error) {
	f, err := os.OpenFile(partial, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if from, err = f.Seek(0, io.SeekEnd); err != nil {
		return 0, err
	}
	if b.size >= 0 && from >= b.size {
		if from == b.size {
			p.report(from, 0)
			return from, nil
		}
		from = 0 // too long: not this blob's
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stall := p.client.stall()
	watchdog := time.AfterFunc(stall, cancel)
	defer watchdog.Stop()

	header := http.Header{}
	if from > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	resp, err := p.client.request(ctx, http.MethodGet, p.client.fileURL(p.repo, p.commit, name), header, true)
	if err != nil {
		return from, passing(nil, fmt.Errorf("%s: %s: %w", p.repo.ID, name, unwrapURL(err)))
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return from, passing(nil, errors.Join(fmt.Errorf("%s: %s: the hub has no bytes from %d on", p.repo.ID, name, from), f.Truncate(0)))
	case resp.StatusCode == http.StatusOK, resp.StatusCode == http.StatusPartialContent && !strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", from)):
		if resp.StatusCode == http.StatusPartialContent && from == 0 {
			return from, fmt.Errorf("%s: %s: the hub sends the part %q that nobody asked for", p.repo.ID, name, resp.Header.Get("Content-Range"))
		}
		if resp.StatusCode == http.StatusPartialContent {
			return from, passing(nil, errors.Join(fmt.Errorf("%s: %s: the hub sends another part (%q)", p.repo.ID, name, resp.Header.Get("Content-Range")), f.Truncate(0)))
		}
		from = 0 // the whole file, whatever was asked
	case resp.StatusCode != http.StatusPartialContent:
		return from, passing(resp, cmp.Or(p.client.refused(p.repo, name, resp), fmt.Errorf("%s: %s: the hub answers HTTP %d", p.repo.ID, name, resp.StatusCode)))
	}
	if err := f.Truncate(from); err != nil {
		return from, err
	}
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return from, err
	}
	return from, p.copy(f, resp.Body, name, b, from, func() { watchdog.Reset(stall) })
}

// copy writes a body behind the first from bytes of f; alive is called after every read that gave some.
func (p *pull) copy(f *os.File, body io.Reader, name string, b blob, from int64, alive func()) error {
	p.report(from, 0)
	at := from
	buf := make([]byte, 256<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			alive()
			if at += int64(n); b.size >= 0 && at > b.size {
				p.report(int64(n)-at, 0)
				return fmt.Errorf("%s: %s: the hub sends more than the %d bytes it announced", p.repo.ID, name, b.size)
			}
			if _, err := f.Write(buf[:n]); err != nil {
				return err
			}
			p.report(int64(n), 0)
		}
		if errors.Is(err, io.EOF) && (b.size < 0 || at == b.size) {
			return f.Sync()
		}
		if err != nil {
			p.report(-at, 0) // the next attempt counts what is there itself
			return passing(nil, fmt.Errorf("%s: %s: the connection was cut after %d of %d bytes (%w); the next try goes on from there", p.repo.ID, name, at, b.size, unwrapURL(err)))
		}
	}
}

// check compares a file with the size and hash that its blob should have.
func check(path string, b blob) error {
	f, err := fsutil.OpenRegular(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if b.size >= 0 && st.Size() != b.size {
		return fmt.Errorf("it has %d bytes, the hub says %d", st.Size(), b.size)
	}
	var h hash.Hash
	switch {
	case len(b.etag) == sha256.Size*2 && isHex(b.etag):
		h = sha256.New()
	case len(b.etag) == sha1.Size*2 && isHex(b.etag):
		h = sha1.New()
		fmt.Fprintf(h, "blob %d\x00", st.Size()) // git's hash of a file
	default:
		return nil // a mirror's own tag: the size has to do
	}
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != b.etag {
		return fmt.Errorf("its hash is %s, the hub says %s", got, b.etag)
	}
	return nil
}

func isHex(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil && s == strings.ToLower(s)
}

// link puts a blob into the snapshot under the file's name: by a relative link, or where the file system has
// none by a copy.
func (p *pull) link(name, etag string) error {
	path := filepath.Join(p.dir, "snapshots", p.commit, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	target, err := filepath.Rel(filepath.Dir(path), filepath.Join(p.dir, "blobs", etag))
	if err != nil {
		return err
	}
	if now, err := os.Readlink(path); err == nil && now == target {
		return nil
	}
	tmp, err := os.MkdirTemp(filepath.Dir(path), ".link-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	made := filepath.Join(tmp, "link")
	if err := os.Symlink(target, made); err != nil {
		if err := copyFile(filepath.Join(p.dir, "blobs", etag), made); err != nil {
			return err
		}
	}
	return os.Rename(made, path)
}

func copyFile(from, to string) (err error) {
	in, err := fsutil.OpenRegular(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}
