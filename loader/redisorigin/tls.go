package redisorigin

import (
	"crypto/tls"
	"crypto/x509"
	"errors"

	"github.com/cachesidecar/cachesidecar/internal/settings"
)

// tlsConfig reads the files for an encrypted connection. It returns nil if TLS is off.
func (cfg *Config) tlsConfig() (*tls.Config, error) {
	if !cfg.TLS {
		if cfg.TLSCAFile != "" || cfg.TLSCertFile != "" || cfg.TLSKeyFile != "" {
			return nil, errors.New("tls_ca_file, tls_cert_file and tls_key_file count with tls: true alone: " +
				"set it, or leave them out")
		}
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.TLSCAFile != "" {
		pem, err := settings.PublicFile("tls_ca_file", cfg.TLSCAFile)
		if err != nil {
			return nil, err
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM([]byte(pem)) {
			return nil, settings.Problemf("tls_ca_file", "%s: there is no certificate in it: give one in "+
				"PEM", cfg.TLSCAFile)
		}
	}
	if cfg.TLSCertFile == "" && cfg.TLSKeyFile == "" {
		return t, nil
	}
	cert, err := settings.PublicFile("tls_cert_file", cfg.TLSCertFile)
	if err != nil {
		return nil, err
	}
	key, err := settings.SecretFile("tls_key_file", cfg.TLSKeyFile)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		return nil, settings.Problemf("tls_cert_file", "%s and tls_key_file %s: %w: give a certificate and its "+
			"key, in PEM",
			cfg.TLSCertFile, cfg.TLSKeyFile, err)
	}
	t.Certificates = []tls.Certificate{pair}
	return t, nil
}
