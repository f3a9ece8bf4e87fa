package train

// UI is told what a long command does. Implementations need no locking: calls come from one goroutine.
type UI interface {
	// Note is a line for people.
	Note(format string, args ...any)
	// Progress reports how far a phase is; done == total ends it.
	Progress(phase string, done, total int, detail string)
}

// Quiet is a UI that says nothing.
type Quiet struct{}

// Note implements UI.
func (Quiet) Note(string, ...any) {}

// Progress implements UI.
func (Quiet) Progress(string, int, int, string) {}
