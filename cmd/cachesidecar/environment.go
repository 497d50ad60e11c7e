package main

import (
	"fmt"
	"os"

	"github.com/cachesidecar/cachesidecar/internal/configfile"
	"github.com/cachesidecar/cachesidecar/internal/logs"
)

// otherVariables are the flags that are no settings, and that the environment may give.
func otherVariables() []string {
	return []string{socketFlag.Name, tokenFlag.Name, coldFlag, askOriginsFlag}
}

// warnUnknown writes a warning for each variable that names no setting, and for what is allowed and dangerous.
func (p *program) warnUnknown(cfg *configfile.File) {
	for _, m := range append(cfg.UnknownVariables(os.Environ(), otherVariables()...), cfg.Warnings()...) {
		fmt.Fprintln(p.err, "cachesidecar: warning:", logs.Plain(m))
	}
}
