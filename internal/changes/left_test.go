package changes

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

func (m *stream) LeftBehind(context.Context) (warnings []string, err error) {
	m.do(func() { warnings, err = m.left, m.leftFails })
	return warnings, err
}

// TestLeftBehindIsLogged checks that the log has what earlier feeds have left behind, when a stream has
// begun, and that the feed is followed also if the server does not tell.
func TestLeftBehindIsLogged(t *testing.T) {
	follows(t, func(w *world) {
		var log bytes.Buffer
		w.f.log = slog.New(slog.NewTextHandler(&log, nil))
		w.server.left = []string{"slot one", "slot two"}
		w.lead()
		w.stop()
		for _, want := range []string{"slot one", "slot two"} {
			line := `level=WARN msg="a replication slot is not in use, and keeps the log of the database" warning="` + want + `"`
			if strings.Count(log.String(), line) != 1 {
				t.Errorf("the log has not once %s:\n%s", line, log.String())
			}
		}
	})
	follows(t, func(w *world) {
		w.server.leftFails = errors.New("no answer")
		w.lead()
	})
}
