package main

import "github.com/urfave/cli/v2"

func (p *program) benchCommand() *cli.Command { return &cli.Command{Name: "bench"} }
