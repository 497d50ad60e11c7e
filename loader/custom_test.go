package loader_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// checked is a Source that can be asked whether its settings are valid.
type checked struct{ loader.Source }

func (checked) Check(context.Context) error {
	return fmt.Errorf("%w: no such table", loader.ErrPermanent)
}

// TestCustomCheck checks that the Check of a program's own Source is found.
func TestCustomCheck(t *testing.T) {
	o, err := loader.Custom{Source: checked{}}.Open(loader.OriginOptions{})
	testenv.Must(t, err)
	if len(o.Checks) != 1 || o.Checks[0].Check(t.Context()) == nil {
		t.Error("the Source's Check is not asked")
	}
}
