//go:build unix

package execorigin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cachesidecar/cachesidecar/loader"
)

// program is a command whose program was found. run starts it; its error has the beginning of what it wrote to
// stderr.
type program struct {
	name, path string
	args, env  []string
	// dashes says that "--" ends the command's options. Then a key may begin with a
	// dash.
	dashes bool
}

// find looks up the program of a command. purpose describes the command in errors.
func find(purpose string, command, env []string) (program, error) {
	if len(command) == 0 {
		return program{}, fmt.Errorf("exec origin: no command to %s: give the program and its arguments", purpose)
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		return program{}, fmt.Errorf("exec origin: program %q to %s: %w", command[0], purpose, err)
	}
	args := slices.Clone(command[1:])
	return program{name: command[0], path: path, args: args, env: env, dashes: slices.Contains(args, "--")}, nil
}

// argument returns the key as the command's last argument.
func (p program) argument(key []byte) (string, error) {
	arg := string(key)
	switch {
	case strings.ContainsRune(arg, 0):
		return "", fmt.Errorf("%w: an argument cannot have a zero byte", loader.ErrBadKey)
	case strings.HasPrefix(arg, "-") && !p.dashes:
		return "", fmt.Errorf("%w: it would be taken for an option: end the command's with \"--\"", loader.ErrBadKey)
	}
	return arg, nil
}

// killWait is how long run waits for open pipes after the command was killed.
const killWait = 100 * time.Millisecond

// run runs the command until it ends or ctx is done. begun says whether the command was
// started. A process that the command leaves behind is not waited for.
func (p program) run(ctx context.Context, in io.Reader, out io.Writer, last ...string) (begun bool, err error) {
	cmd := exec.CommandContext(ctx, p.path, slices.Concat(p.args, last)...)
	cmd.Env = p.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = killWait
	said := &limited{most: 256, over: func() {}}
	outputs, err := newOutputs(out, said)
	if err != nil {
		return false, fmt.Errorf("exec origin %s: %w", p.name, err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, outputs[0].w, outputs[1].w
	err = cmd.Start()
	outputs.begin()
	if err == nil {
		begun, err = true, cmd.Wait()
	}
	outputs.end()
	switch {
	case !begun:
		return false, fmt.Errorf("exec origin %s: %w", p.name, err)
	case errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil: // it has not read all of in, and ended well
		return true, nil
	case err == nil:
		return true, nil
	case ctx.Err() != nil:
		return true, fmt.Errorf("exec origin %s: killed: %w", p.name, ctx.Err())
	}
	return true, fmt.Errorf("exec origin %s: %w, and said %q", p.name, err, said.buf.String())
}
