package postgres

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// What the texts of a connection depend on. The settings of a role, of a database and of the DSN would make
// another text of the same value.

// utf8Name is the server's name of the encoding that keys and values have.
const utf8Name = "UTF8"

// setTexts has a connection speak UTF-8, whatever the DSN, the role and the database have set, or none at all:
// a pooler may ignore what is asked for.
func setTexts(c *pgconn.Config) {
	setParam(c, "client_encoding", utf8Name)
	c.AfterConnect = func(_ context.Context, conn *pgconn.PgConn) error {
		if got := conn.ParameterStatus("client_encoding"); got != "" && got != utf8Name {
			return fmt.Errorf("client_encoding of the connection is %s, although UTF8 was asked for: keys and values "+
				"would be other texts; have the pooler pass client_encoding on, or give the server itself", got)
		}
		return nil
	}
}

// setLogTexts has the log's texts of values depend on nothing but the values.
func setLogTexts(c *pgconn.Config) {
	setParam(c, "timezone", "UTC")
	setParam(c, "datestyle", "ISO")
	setParam(c, "intervalstyle", "postgres")
	setParam(c, "bytea_output", "hex")
	setParam(c, "extra_float_digits", "1")
}

// setParam sets a parameter of a connection in the place of the DSN's. The server knows no case in their names,
// and would take either.
func setParam(c *pgconn.Config, name, value string) {
	for given := range c.RuntimeParams {
		if strings.EqualFold(given, name) {
			delete(c.RuntimeParams, given)
		}
	}
	c.RuntimeParams[name] = value
}
