package testenv

import (
	"strings"
	"sync"
)

// Text is a log in memory. Several goroutines may use it.
type Text struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *Text) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *Text) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
