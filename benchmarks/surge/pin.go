package surge

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Processors returns the processors that this process may use.
func Processors() (list []int, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("which processors may be used: %w", err)
	}
	for i := range len(set) * 64 {
		if set.IsSet(i) {
			list = append(list, i)
		}
	}
	return list, nil
}

// Pin lets all threads of this process run on the given processors alone. Processes and
// threads that it starts from then on inherit that.
func Pin(processors ...int) error {
	var set unix.CPUSet
	for _, p := range processors {
		set.Set(p)
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(id, &set); err != nil && err != unix.ESRCH {
			return fmt.Errorf("pin thread %d to processors %v: %w", id, processors, err)
		}
	}
	return nil
}
