package cluster

import (
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/cachesidecar/cachesidecar/internal/settings"
)

// binds returns the addresses where this node listens, with the names of their
// settings.
func (c *Config) binds() []setting { return []setting{{"bind", c.Bind}, {"peer_bind", c.PeerBind}} }

type setting struct{ name, value string }

// checkAddresses returns all that is wrong with the addresses, joined, or nil.
func (c *Config) checkAddresses() error {
	var wrong []error
	if ip := net.ParseIP(c.Advertise); c.Advertise != "" && (ip == nil || ip.IsUnspecified()) {
		wrong = append(wrong,
			settings.Problemf("advertise", "%q: give the IP address that other hosts reach this one "+
				"under", c.Advertise))
	}
	for _, a := range c.binds() {
		host, err := splitAddress(a.value)
		if err != nil {
			err = settings.Problemf(a.name, "%q: give host:port, such as 127.0.0.1:7946 (%w)", a.value, err)
			wrong = append(wrong, err)
		} else if host != "localhost" && net.ParseIP(host) == nil {
			wrong = append(wrong, settings.Problemf(a.name, "%q: give an IP address of this host and a port, "+
				"such as 127.0.0.1:7946", a.value))
		} else {
			continue
		}
		break // peer_bind follows bind by default
	}
	for _, j := range c.Join {
		host, err := splitAddress(j)
		if err == nil && host == "" {
			err = errors.New("there is no host")
		}
		if err != nil {
			wrong = append(wrong, settings.Problemf("join", "%q: give host:port, such as 10.0.0.7:7946 (%w)", j, err))
		}
	}
	if len(wrong) == 0 {
		wrong = append(wrong, c.checkReach())
	}
	for _, a := range c.binds() {
		host, _ := splitAddress(a.value)
		if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() && c.Advertise == "" {
			wrong = append(wrong, settings.Problemf(a.name, "%s %s", a.value, everyAddress))
		}
	}
	return errors.Join(wrong...)
}

const everyAddress = "is every address of this host, and others must know one: set advertise"

// checkReach refuses addresses other than loopback's if nothing is encrypted.
func (c *Config) checkReach() error {
	if c.Secured || c.Insecure {
		return nil
	}
	all := c.binds()
	if c.Advertise != "" {
		all = append(all, setting{"advertise", net.JoinHostPort(c.Advertise, "0")})
	}
	for _, j := range c.Join {
		all = append(all, setting{"join", j})
	}
	for _, a := range all {
		host, _ := splitAddress(a.value)
		if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
			continue
		}
		if a.name == "advertise" {
			a.value = c.Advertise
		}
		return settings.Problemf(a.name, "%s is not loopback, and without a cluster key nothing that passes "+
			"between hosts is "+
			"encrypted: give all hosts one cluster_key_file (\"cachesidecar key generate\" makes it), "+
			"use a loopback address, or say insecure where the network is trusted", a.value)
	}
	return nil
}

// advertised returns the address of the peer server, as other nodes use it.
func (c *Config) advertised(a net.Addr) (string, error) {
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return "", fmt.Errorf("peer_bind: %w", err)
	}
	if ip := net.ParseIP(host); c.Advertise != "" {
		host = c.Advertise
	} else if ip != nil && ip.IsUnspecified() {
		return "", fmt.Errorf("peer_bind %s %s", c.PeerBind, everyAddress)
	}
	return net.JoinHostPort(host, port), nil
}

// splitAddress returns the host of host:port.
func splitAddress(s string) (host string, err error) {
	host, port, err := net.SplitHostPort(s)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	return host, err
}
