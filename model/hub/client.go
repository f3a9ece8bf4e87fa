package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Client talks to one hub and keeps one cache.
type Client struct {
	Endpoint string // e.g. https://huggingface.co
	Cache    string // folder that holds models--org--name
	Token    string // "" for none
	Offline  bool   // never ask the network
	HTTP     *http.Client
	// Progress, if set, is called with how many bytes of a repository are there, of how many; total grows as sizes
	// become known. Calls do not overlap.
	Progress func(done, total int64)
	// Wait is how long to wait before attempt n (from 1) of a request that failed for a while; nil: 1, 2, 4, … s.
	Wait func(n int) time.Duration
	// Stall is how long a download may stand still, or another answer take, before it is asked for anew; 0: 30 s.
	Stall time.Duration
}

const (
	attempts  = 5
	userAgent = "gopeft"
	maxList   = 64 << 20 // bytes of a repository's list of files
)

// FromEnv is the client that the environment describes, by the variables of HuggingFace's own libraries: HF_HOME,
// HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE, XDG_CACHE_HOME.
func FromEnv(getenv func(string) string) (*Client, error) {
	first := func(names ...string) string {
		for _, n := range names {
			if v := strings.TrimSpace(getenv(n)); v != "" {
				return v
			}
		}
		return ""
	}
	userHome := getenv("HOME")
	expand := func(p string) string {
		if p == "~" || strings.HasPrefix(p, "~/") {
			return filepath.Join(userHome, p[1:])
		}
		return p
	}
	home := expand(first("HF_HOME"))
	if home == "" {
		cache := expand(first("XDG_CACHE_HOME"))
		if cache == "" {
			if userHome == "" {
				return nil, errors.New("neither HOME nor HF_HOME is set: set HF_HOME to a folder for what the hub gives")
			}
			cache = filepath.Join(userHome, ".cache")
		}
		home = filepath.Join(cache, "huggingface")
	}
	c := &Client{Endpoint: strings.TrimRight(first("HF_ENDPOINT"), "/"), Cache: expand(first("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")), HTTP: http.DefaultClient}
	if c.Cache == "" {
		c.Cache = filepath.Join(home, "hub")
	}
	if c.Endpoint == "" {
		c.Endpoint = "https://huggingface.co"
	}
	if u, err := url.Parse(c.Endpoint); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("HF_ENDPOINT %q is not the address of a hub, such as https://huggingface.co", c.Endpoint)
	}
	for _, n := range []string{"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"} {
		switch strings.ToUpper(getenv(n)) {
		case "1", "ON", "YES", "TRUE":
			c.Offline = true
		}
	}
	if c.Token = first("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"); c.Token == "" {
		path := expand(first("HF_TOKEN_PATH"))
		if path == "" {
			path = filepath.Join(home, "token")
		}
		if raw, err := os.ReadFile(path); err == nil {
			c.Token = strings.TrimSpace(string(raw))
		}
	}
	if strings.ContainsAny(c.Token, "\r\n") {
		return nil, errors.New("HF_TOKEN holds a line break")
	}
	return c, nil
}

// ErrOffline is the error of what would need the network while the client is offline.
var ErrOffline = errors.New("it is not in the cache, and HF_HUB_OFFLINE forbids asking the hub")

// StatusError is a hub's refusal.
type StatusError struct {
	Repo    Repo
	File    string // "" for the repository as a whole
	Status  int
	Code    string // the hub's own, e.g. GatedRepo
	Message string // the hub's own
	hasKey  bool
	page    string
}

func (e *StatusError) Error() string {
	name := e.Repo.ID
	if e.File != "" {
		name += ": " + e.File
	}
	switch {
	case e.Code == "GatedRepo":
		return fmt.Sprintf("%s is gated: accept its terms on %s, then set HF_TOKEN to a token of yours", name, e.page)
	case e.Code == "RevisionNotFound":
		return fmt.Sprintf("%s has no revision %q", name, e.Repo.revision())
	case e.Status == http.StatusUnauthorized && !e.hasKey, e.Status == http.StatusNotFound && !e.hasKey:
		return fmt.Sprintf("%s: the hub has no such %s, or it is private (HTTP %d): check the name, or set HF_TOKEN", name, e.Repo.kind(), e.Status)
	case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden:
		return fmt.Sprintf("%s: the hub refuses HF_TOKEN (HTTP %d)%s", name, e.Status, e.said())
	case e.Status == http.StatusNotFound:
		return fmt.Sprintf("%s: the hub has no such %s, or HF_TOKEN may not see it (HTTP 404)", name, e.Repo.kind())
	}
	return fmt.Sprintf("%s: the hub answers HTTP %d%s", name, e.Status, e.said())
}

func (e *StatusError) said() string {
	if e.Message == "" {
		return ""
	}
	return ": " + e.Message
}

func (r Repo) kind() Kind {
	if r.Kind == "" {
		return Model
	}
	return r.Kind
}

// page is the repository's address.
func (c *Client) page(r Repo) string {
	if r.Kind == Dataset {
		return c.Endpoint + "/datasets/" + r.ID
	}
	return c.Endpoint + "/" + r.ID
}

func (c *Client) fileURL(r Repo, commit, name string) string {
	parts := strings.Split(name, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return c.page(r) + "/resolve/" + commit + "/" + strings.Join(parts, "/")
}

// request sends a request. A redirect to another host is followed only where elsewhere is true, and without the token.
func (c *Client) request(ctx context.Context, method, address string, header http.Header, elsewhere bool) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Accept-Encoding", "identity") // lengths and ranges are the file's own
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	client := http.Client{}
	if c.HTTP != nil {
		client = *c.HTTP
	}
	client.CheckRedirect = func(next *http.Request, via []*http.Request) error {
		from := via[len(via)-1].URL
		switch {
		case len(via) > 10:
			return errors.New("too many redirects")
		case from.Scheme == "https" && next.URL.Scheme != "https":
			return fmt.Errorf("redirected from https to %s", next.URL.Scheme)
		case next.URL.Host != via[0].URL.Host:
			if !elsewhere {
				return http.ErrUseLastResponse
			}
			next.Header.Del("Authorization") // Go itself would keep it for subdomains
		}
		return nil
	}
	return client.Do(req)
}

// refused is the error that a response stands for, nil if it is a success.
func (c *Client) refused(r Repo, file string, resp *http.Response) error {
	if resp.StatusCode < 400 {
		return nil
	}
	message := resp.Header.Get("X-Error-Message")
	if len(message) > 300 {
		message = message[:300]
	}
	return &StatusError{Repo: r, File: file, Status: resp.StatusCode, Code: resp.Header.Get("X-Error-Code"),
		Message: strings.Join(strings.Fields(message), " "), hasKey: c.Token != "", page: c.page(r)}
}

// retry calls do until it succeeds, fails for good, or has failed too often.
func (c *Client) retry(ctx context.Context, do func() error) error {
	for n := 1; ; n++ {
		err := do()
		var passing *passingError
		if err == nil || ctx.Err() != nil || n == attempts || !errors.As(err, &passing) {
			if err != nil && ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
		wait := time.Duration(1<<(n-1)) * time.Second
		if c.Wait != nil {
			wait = c.Wait(n)
		}
		select {
		case <-time.After(max(wait, passing.after)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *Client) stall() time.Duration {
	if c.Stall == 0 {
		return 30 * time.Second
	}
	return c.Stall
}

// passingError may be gone at the next attempt.
type passingError struct {
	err   error
	after time.Duration // the server asked to wait so long
}

func (e *passingError) Error() string { return e.err.Error() }
func (e *passingError) Unwrap() error { return e.err }

// passing marks the errors that may pass: of the network, of an overloaded or failing server.
func passing(resp *http.Response, err error) error {
	if resp == nil {
		return &passingError{err: err}
	}
	if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500 {
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return &passingError{err, time.Duration(min(max(seconds, 0), 60)) * time.Second}
	}
	return err
}

// listing is what the hub says of a revision.
type listing struct {
	commit string
	files  []string
}

// list asks what a revision holds.
func (c *Client) list(ctx context.Context, r Repo) (l listing, err error) {
	address := fmt.Sprintf("%s/api/%ss/%s/revision/%s", c.Endpoint, r.kind(), r.ID, url.PathEscape(r.revision()))
	var raw []byte
	err = c.retry(ctx, func() error {
		ctx, cancel := context.WithTimeout(ctx, c.stall())
		defer cancel()
		resp, err := c.request(ctx, http.MethodGet, address, nil, false)
		if err != nil {
			err := fmt.Errorf("cannot reach the hub at %s: %w", c.Endpoint, unwrapURL(err))
			if dial := (*net.OpError)(nil); errors.As(err, &dial) && dial.Op == "dial" {
				return err // no network, most likely: not worth the wait
			}
			return passing(nil, err)
		}
		defer resp.Body.Close()
		if err := c.refused(r, "", resp); err != nil {
			return passing(resp, err)
		}
		if raw, err = io.ReadAll(io.LimitReader(resp.Body, maxList+1)); err != nil {
			return passing(nil, fmt.Errorf("%s: the list of files was cut: %w", r.ID, err))
		}
		return nil
	})
	if err != nil {
		return l, err
	}
	var answer struct {
		SHA      string `json:"sha"`
		Siblings []struct {
			Name string `json:"rfilename"`
		} `json:"siblings"`
	}
	if len(raw) > maxList {
		return l, fmt.Errorf("%s: the list of files is longer than %d bytes", r.ID, maxList)
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return l, fmt.Errorf("%s: the hub's list of files is not JSON (%w): is HF_ENDPOINT %s a hub?", r.ID, err, c.Endpoint)
	}
	if !commitID.MatchString(answer.SHA) {
		return l, fmt.Errorf("%s: the hub names the revision %q, which is no commit", r.ID, answer.SHA)
	}
	l.commit = answer.SHA
	for _, s := range answer.Siblings {
		if !localName(s.Name) {
			return l, fmt.Errorf("%s: the hub lists a file called %q, which would be written outside its folder", r.ID, s.Name)
		}
		l.files = append(l.files, s.Name)
	}
	return l, nil
}

// unwrapURL takes off net/http's prefix, which repeats method and address.
func unwrapURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
