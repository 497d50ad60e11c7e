// Package attacks sends attackers to real sidecars, and measures the effect on other
// clients of the host. It contains only tests.
//
// Each attack runs beside a victim: a well-behaved app on the same host, whose reads and
// writes are paced, checked and timed. Inputs are flags of the tests. Outputs are
// failures and, with -attacks.table, the table in docs/ATTACKS.md.
//
// The sidecars are the command itself, built for the tests. An attacker is this test
// binary, executed again, so that its work does not count in the measured times. If the
// tests run as root, it runs as another user (65534) unless the attack says otherwise.
// All addresses are on loopback. A sidecar that takes more than 2 GiB is killed, and
// counts as lost.
//
// The limits:
//
//	p99     of the victim beside the attack ≤ 3 × its p99 while the same attack is
//	        aimed at a second sidecar of the same machine (-attacks.table only)
//	wrong   values that the victim did not write: 0
//	missing requests of the victim without the required answer: 0
//	peak    memory at any time ≤ what docs/OPERATIONS.md states for the sizes. As root the
//	        process is in a cgroup whose limit that is, so that it ends if it takes more
//	after   resident memory back within 10 % of that before the attack, 10 s after
//	        its end and a garbage collection (-attacks.table only)
package attacks
