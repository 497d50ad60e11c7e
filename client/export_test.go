package client

// Joined returns how many calls of GetOrLoad wait for a question that has no answer yet.
func (c *Client) Joined() (n int) {
	c.loads.mu.Lock()
	defer c.loads.mu.Unlock()
	for _, q := range c.loads.keys {
		n++ // the flight under way, which began with one caller or has taken over those that wait
		if q.next != nil {
			n += q.next.callers
		}
	}
	return n
}

// Doubted says whether a connection is in doubt.
func (c *Client) Doubted() bool {
	for _, s := range c.slots {
		if s.doubt.Load() != nil {
			return true
		}
	}
	return false
}
