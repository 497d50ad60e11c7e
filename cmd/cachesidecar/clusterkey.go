package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/internal/peer"
)

func keyCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:  "key",
		Usage: "make the key that the hosts of a cluster share",
		Subcommands: []*cli.Command{{
			Name:  "generate",
			Usage: "make a cluster key file",
			Description: "Prints a new file for --cluster-key-file, with a secret seed and one key, or writes it.\n" +
				"Copy it to all hosts. To change the key later, add a line made with --key-only:\n" +
				"the file tells how.",
			Flags: []cli.Flag{
				fileFlag("out", "write `FILE`, for its owner only; a file that exists stays"),
				boolFlag("key-only", "make one more key, to be added to the file that there is"),
			},
			Action: withArgs(0, 0, func(c *cli.Context) error { return generateKey(c, p.out) }),
		}},
	}
}

// generateKey makes a file, or one line of it, and writes it to a path or to out.
func generateKey(c *cli.Context, out io.Writer) error {
	if c.IsSet("out") && c.String("out") == "" {
		return usagef(`--out "": give a file's path, or leave the flag out`)
	}
	text := peer.NewKeyFile()
	if c.Bool("key-only") {
		text = peer.NewKeyLine()
	}
	if path := c.String("out"); path != "" {
		return writeSecret(path, text)
	}
	_, err := fmt.Fprint(out, text)
	return err
}

// writeSecret makes a file that no other user may read, whatever the umask is.
func writeSecret(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists, and may be the key of running hosts: give another path, or remove it first", path)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: give the path of a file that can be made", path, errors.Unwrap(err))
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Chmod(0o600), f.Sync(), f.Close()); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", path, err), os.Remove(path))
	}
	return nil
}
