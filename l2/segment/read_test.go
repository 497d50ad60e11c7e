package segment

import (
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestWarmOfOldWords checks that Warm stays within the arena, whatever the words say that it
// reads without the lock.
func TestWarmOfOldWords(t *testing.T) {
	s, err := New(Config{Size: MinSize, Versions: kv.NewHLC(0)})
	testenv.Must(t, err)
	defer s.Close()
	h := kv.HashKey(0, []byte("key"))
	page := s.shard(h).index.dir[s.shard(h).index.dirSlot(h)]
	for _, loc := range []location{0, 1, location(len(s.arena) / align), 1<<locationBits - 1} {
		for i := range wordsAPage {
			putWord(s.pages.bytes(page), i, makeWord(h, 0, loc))
		}
		s.Warm([]kv.Hash{h, h ^ 1<<63}) // with a match, and without one
	}
}
