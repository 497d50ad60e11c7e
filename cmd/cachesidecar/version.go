package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// version is set by the linker for releases.
var version = ""

// buildVersion returns the version of this build: the linker's, else the module's.
func buildVersion() string {
	if version != "" {
		return version
	}
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" && bi.Main.Version != "(devel)" {
		return bi.Main.Version
	}
	return "devel"
}

func versionCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:   "version",
		Usage:  "print build, protocol and Go version",
		Flags:  []cli.Flag{jsonFlag},
		Action: withArgs(0, 0, p.version),
	}
}

func (p *program) version(c *cli.Context) error {
	about := map[string]any{"version": buildVersion(), "protocol": wire.Version, "go": runtime.Version()}
	return p.show(c, about,
		fmt.Sprintf("cachesidecar %s, protocol %d, %s\n", buildVersion(), wire.Version, runtime.Version()))
}
