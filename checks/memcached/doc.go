// Package memcached holds the endpoint that speaks memcached's text and meta protocols to
// software that was written for memcached: memcached's own test suite, the clients
// pymemcache, gomemcache and libmemcached's tools, a long job of all of them beside
// each other with a checker of their answers, and clients in other languages.
//
// It tests a Target: real memcached, or sidecars. What a file of memcached's suite must do on
// each is in testdata/suite.txt, which is the table in README.md too.
package memcached
