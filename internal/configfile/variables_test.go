package configfile

import "testing"

// TestKubernetesNamesNoSetting checks that no variable that Kubernetes makes for a service
// can have the name of a setting.
func TestKubernetesNamesNoSetting(t *testing.T) {
	for _, flag := range append(namesOf(Flags()), "token-file") {
		if name := EnvName(flag); ofKubernetes.MatchString(name) {
			t.Errorf("%s: Kubernetes makes such a variable for a service", name)
		}
	}
}
