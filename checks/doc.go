// Package checks and the packages below it hold what stands beside the program to the real
// programs that it is made for: the status page to Chromium, the dashboard and the rules to
// Prometheus, the units to systemd, the manifests to the types of Kubernetes, the package to
// dpkg.
//
// There are only tests here, in a module of its own, so that nothing that they need enters
// go.mod of the program.
package checks
