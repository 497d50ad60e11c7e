package httporigin

import (
	"maps"
	"net/http"
	"net/url"
	"slices"

	"golang.org/x/net/http/httpguts"

	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/loader"
)

// check validates the settings that New does not check itself.
func (cfg *Config) check() error {
	var wrong settings.Problems
	// Errors do not show the user and the query of a URL, because they may be secrets.
	if u, err := url.Parse(cfg.URL); err == nil && u.User != nil {
		wrong.Addf("url", ": it has a user or password: leave them out, "+
			"and give them as a header Authorization in header_files")
	}
	for _, code := range cfg.Absent {
		wrong.Add(settings.Bounded("absent", code, 200, 599))
	}
	wrong.Add(settings.Bounded("connections", cfg.Connections, 0, loader.MaxConnections))
	return wrong.Err()
}

// header returns the header of all requests, and those of its values that are secrets.
func (cfg *Config) header() (header http.Header, secrets []string, err error) {
	var wrong settings.Problems
	header = http.Header{}
	for _, name := range slices.Sorted(maps.Keys(cfg.Headers)) {
		if slices.Contains(secretHeaders, http.CanonicalHeaderKey(name)) {
			wrong.Addf("headers."+name, "is a secret: give the path of a file that contains it, in header_files")
			continue
		}
		wrong.Add(addHeader(header, "headers", name, cfg.Headers[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.HeaderFiles)) {
		value, err := settings.SecretFile("header_files."+name, cfg.HeaderFiles[name])
		if err != nil {
			wrong.Add(err)
			continue
		}
		wrong.Add(addHeader(header, "header_files", name, value))
		secrets = append(secrets, value)
	}
	switch header.Get(acceptEncoding) {
	case "":
		header.Set(acceptEncoding, "gzip")
	case "gzip", "identity":
	default:
		wrong.Addf("headers."+acceptEncoding, ": only gzip is decoded: leave the header out, or give identity for "+
			"plain bodies")
	}
	return header, secrets, wrong.Err()
}

// secretHeaders must not be in the configuration file.
var secretHeaders = []string{"Authorization", "Cookie", "Proxy-Authorization"}

func addHeader(h http.Header, setting, name, value string) error {
	switch {
	case !httpguts.ValidHeaderFieldName(name):
		return settings.Problemf(setting, ": %q is no header's name: give letters, digits and dashes", name)
	case !httpguts.ValidHeaderFieldValue(value):
		return settings.Problemf(setting+"."+name, ": the value has line breaks or other control characters: "+
			"leave them out")
	case h.Get(name) != "":
		return settings.Problemf(setting+"."+name, "is there already: leave out one of them")
	}
	h.Set(name, value)
	return nil
}
