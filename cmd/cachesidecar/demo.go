package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
)

func demoCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:  "demo",
		Usage: "show three sidecars on this machine as one cache",
		Description: "Starts three sidecars on free ports of 127.0.0.1, shows commands and what they print, and\n" +
			"kills one of the three. Takes about 8 s and leaves nothing behind. Exit status 1 if something is not\n" +
			"as it should be.",
		Action: withArgs(0, 0, func(c *cli.Context) error {
			// A closed terminal or output ends it in order, too.
			ctx, stop := signal.NotifyContext(c.Context, syscall.SIGHUP, syscall.SIGPIPE)
			defer stop()
			return (&demo{out: p.out, begun: time.Now(), kill: map[string]func(){}}).run(ctx)
		}),
	}
}

// demo is three sidecars that act as separate hosts. They are processes of this program.
type demo struct {
	ctx       context.Context         // all processes end with it
	fail      context.CancelCauseFunc // the first error counts, and ends all steps
	processes sync.WaitGroup
	dir       string
	kill      map[string]func()
	once      bool // a command is not repeated
	out       io.Writer
	begun     time.Time
}

func (d *demo) run(ctx context.Context) (err error) {
	if d.dir, err = os.MkdirTemp("", "cachesidecar-demo"); err != nil {
		return err
	}
	defer os.RemoveAll(d.dir)
	os.Clearenv() // of the user's own settings
	d.ctx, d.fail = context.WithCancelCause(ctx)
	if err := d.start("one", "two", "three"); err != nil {
		d.fail(err)
	} else {
		d.story()
	}
	err = context.Cause(d.ctx)
	d.fail(nil)
	d.processes.Wait()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil: // %v, so that the exit status is 1
		log, _ := os.ReadFile(filepath.Join(d.dir, "log"))
		return fmt.Errorf("not as it should be: %v\nThe sidecars wrote:\n%s", err, log)
	}
	_, err = fmt.Fprintln(d.out, "\nThe sidecars are ended, and their folder is removed.")
	return err
}

// start starts the sidecars. One that ends by itself ends the demo.
func (d *demo) start(names ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(d.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	var at []string // addresses that were free a moment ago
	for range 2 * len(names) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		at = append(at, l.Addr().String())
		_ = l.Close()
	}
	for i, name := range names {
		ctx, ending := context.WithCancel(d.ctx)
		cmd := exec.CommandContext(ctx, self, "run", "--node", name, "--socket", filepath.Join(d.dir, name),
			"--cluster", filepath.Base(d.dir), "--join", strings.Join(at[:len(names)], ","), "--bind", at[i],
			"--peer-bind", at[len(names)+i], "--l1-size", "4MiB", "--l2-size", "16MiB", "--shared-size", "off",
			"--http", "off", "--log-format", "text")
		cmd.Stderr = log
		endWithParent(cmd)
		if err := cmd.Start(); err != nil {
			ending()
			return err
		}
		d.kill[name] = func() { ending(); _ = cmd.Process.Kill() }
		fmt.Fprintf(d.out, "%s is process %d\n", name, cmd.Process.Pid)
		d.processes.Go(func() { // ends with the process
			if err := cmd.Wait(); ctx.Err() == nil {
				d.fail(fmt.Errorf("%s has ended: %v", name, err))
			}
		})
	}
	return nil
}

// story shows what the sidecars do.
func (d *demo) story() {
	d.step("They find each other:", "members --socket one", `(?s)( in .*){3}`)
	d.step("Each key has an owner:", "stats --cluster --socket one", "serving: 3 of 3 hosts")
	key := ""
	for i, out := 0, ""; i < 1000 && !strings.Contains(out, "owned by two"); i++ {
		key = fmt.Sprintf("key%d", i)
		out, _ = d.command("ring " + key + " --socket one")
	}
	d.step("A key of two is written through one:", "set "+key+" hello --socket one", "")
	d.step("Three asks its owner:", "get "+key+" --json --socket three", `(?s)"hello".*"peer"`)
	d.step("Then it has a copy:", "get "+key+" --json --socket three", `(?s)"hello".*"l1"`)
	d.step("A change ends all copies:", "set "+key+" again --ack all --socket one", "")
	d.once = true
	d.step("So three has the new value at once:", "get "+key+" --json --socket three", `(?s)"again".*"peer"`)
	d.once = false
	d.kill["two"]()
	d.step("Two is killed (SIGKILL). Another host takes its keys:", "set "+key+" later --socket one", "")
	d.step("Its keys are read on:", "get "+key+" --socket three", "later")
}

// step shows a command and what it prints. It repeats the command until that is right.
func (d *demo) step(title, line, want string) {
	for begun := time.Now(); d.ctx.Err() == nil; _ = sleep(d.ctx, 10*time.Millisecond) {
		out, status := d.command(line)
		if status == exitDone && regexp.MustCompile(want).MatchString(out) {
			fmt.Fprintf(d.out, "\n%s %.2f s\n$ cachesidecar %s\n%s", title, time.Since(d.begun).Seconds(), line, out)
			return
		}
		if d.once || time.Since(begun) > 20*time.Second { // the machine may be busy
			d.fail(fmt.Errorf("cachesidecar %s prints:\n%s", line, out))
		}
	}
}

// command runs a command line, whose last word is a host.
func (d *demo) command(line string) (out string, status int) {
	var text bytes.Buffer
	args := strings.Fields("cachesidecar " + line)
	args[len(args)-1] = filepath.Join(d.dir, args[len(args)-1])
	status = (&program{out: &text, err: &text}).run(d.ctx, args)
	return text.String(), status
}
