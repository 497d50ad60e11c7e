package ownership

import "time"

// A cut link is no split while other nodes tell each end of the other. If they stop, or
// crash, the ends lose contact, and in the end each takes the other for dead: the one
// excepted case, put together from two faults. A stop of an end adds to the silence; if
// that is B or more, the node knows it. So the lack of a path makes up at least D - B of a
// silence that misleads.
const (
	contactLook = simGossip / 2
	contactMin  = 6                             // looks in a row at which a node must be awake to tell of others
	silentFor   = simDetection - simBound/2     // no word for so long,
	pathlessFor = (simDetection - simBound) / 2 // and no path for so long of it: a split
	healing     = 3 * simBound                  // after it: both sides hear of each other
)

// contact watches whether the nodes can tell each other that they live.
type contact struct {
	s     *sim
	awake []int // looks in a row
	epoch []int
	pairs [][]silence
}

// silence is what one node has not heard of another.
type silence struct{ total, pathless time.Duration }

// watch notes when two nodes are without contact. That excuses two owners until they have
// had the time to hear of each other again.
func (s *sim) watch() {
	c := &contact{s: s, awake: make([]int, len(s.nodes)), epoch: make([]int, len(s.nodes))}
	for range s.nodes {
		c.pairs = append(c.pairs, make([]silence, len(s.nodes)))
	}
	c.look()
}

func (c *contact) look() {
	fresh := make([]bool, len(c.s.nodes)) // a new process begins to listen
	for i, n := range c.s.nodes {
		fresh[i] = !n.running || n.epoch != c.epoch[i]
		c.epoch[i] = n.epoch
		c.awake[i]++
		if fresh[i] || n.stopped {
			c.awake[i] = 0
		}
	}
	path := c.paths()
	for i, row := range c.pairs {
		for j := range row {
			s := &row[j]
			switch s.total += contactLook; {
			case fresh[i] || fresh[j]:
				*s = silence{}
			case !path[i][j]:
				s.pathless += contactLook
			case c.tells(i) && c.tells(j):
				*s = silence{}
			}
			if s.total >= silentFor && s.pathless >= pathlessFor {
				c.s.lostAt = c.s.now
			}
		}
	}
	c.s.after(contactLook, c.look)
}

// tells says whether a node has been awake for long enough.
func (c *contact) tells(i int) bool { return c.awake[i] >= contactMin }

// paths says which node what another says can reach, directly or through others.
func (c *contact) paths() [][]bool {
	path := make([][]bool, len(c.pairs))
	for to := range path {
		path[to] = make([]bool, len(c.pairs))
		for from := range path {
			path[to][from] = !c.s.cut[[2]int{from, to}]
		}
	}
	for by := range path {
		for to := range path {
			for from := range path {
				path[to][from] = path[to][from] || c.tells(by) && path[to][by] && path[by][from]
			}
		}
	}
	return path
}
