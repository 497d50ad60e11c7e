package configfile

import (
	"strings"
	"testing"
)

// TestEveryBoundHasALine checks that a value that is out of bounds is found at its line,
// for each setting that flags can give.
func TestEveryBoundHasALine(t *testing.T) {
	for key, value := range map[string]string{
		"node": "'a b'", "l1_size": "1", "l2_size": "1", "max_value": "2TiB", "buffer_size": "1", "max_namespaces": "999",
		"max_connections": "-1", "request_timeout": "2h", "bind": "x", "cluster": "'a b'", "partition_policy": "x", "voters": "[a]",
		"cluster_key_file": "/no/such", "tls": "{key: /k}", "max_staleness": "1h", "max_clock_skew": "1h", "http": "x", "http_hosts": "[a/b]",
		"http_token_file": "/no/such", "admin_group": "no-such-group", "log_format": "x", "log_level": "x", "join": "[x]",
	} {
		cfg, err := parsed([]byte("\n\n" + key + ": " + value + "\n"))
		if err != nil {
			t.Fatal(key, err)
		}
		list := cfg.FindProblems()
		if len(list) == 0 || list[0].Line != 3 || !strings.HasPrefix(list[0].Setting, key) {
			t.Errorf("%s: %+v", key, list)
		}
	}
}
