package quota

import "fmt"

// App is an app of a host: a process of a user. A request that goes on to another host names the app, so that what it
// takes there is charged to the app too.
type App struct{ User, Process int } // Process is zero if it is not known

// Nobody is the user of apps whose user is not known.
const Nobody = 65534

// Number returns the app as one number, which is not zero: zero stands for a host itself.
func (p App) Number() uint64 { return uint64(uint32(p.User)+1)<<32 | uint64(uint32(p.Process)) }

// AppOf returns the app of a number.
func AppOf(number uint64) App { return App{int(uint32(number>>32) - 1), int(uint32(number))} }

// Names returns the names of the app's accounts, on its own host, and on another one, which knows its host by a node's
// name.
func (p App) Names(node string) (tenant, process string) {
	if tenant = UserTenant(p.User); node != "" {
		tenant = NodeTenant(node) + " " + tenant
	}
	if p.Process != 0 {
		process = fmt.Sprint("pid ", p.Process)
	}
	return tenant, process
}

// UserTenant returns the tenant name of a user of this host.
func UserTenant(uid int) string { return fmt.Sprint("uid ", uid) }

// NodeTenant returns the tenant name of another host.
func NodeTenant(node string) string { return "node " + node }
