// Package kubernetes holds the manifests to the types of Kubernetes' API, and what they
// configure to the real command.
package kubernetes

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/cachesidecar/cachesidecar/checks/sidecars"
)

func TestMain(m *testing.M) { sidecars.Main(m) }

const folder = "../../deploy/kubernetes"

// decode strictly decodes all documents of a file: an unknown or repeated field is an error.
func decode(t *testing.T, file string) (objects []runtime.Object) {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{appsv1.AddToScheme, corev1.AddToScheme, networkingv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	f, err := os.Open(filepath.Join(folder, file))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for documents := yaml.NewDocumentDecoder(f); ; {
		b := make([]byte, 64<<10)
		n, err := documents.Read(b)
		if errors.Is(err, io.EOF) {
			return objects
		} else if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		o, _, err := decoder.Decode(b[:n], nil, nil)
		if err != nil {
			t.Fatalf("%s: %v\n%s", file, err, b[:n])
		}
		objects = append(objects, o)
	}
}

// find returns the object of a type with a name.
func find[T interface{ GetName() string }](t *testing.T, objects []runtime.Object, name string) T {
	t.Helper()
	for _, o := range objects {
		if v, ok := o.(T); ok && v.GetName() == name {
			return v
		}
	}
	t.Fatalf("no %T %s", *new(T), name)
	panic("unreachable")
}

// pods returns the templates of all pods in the files, by the names of their owners.
func pods(t *testing.T) map[string]*corev1.PodTemplateSpec {
	list := map[string]*corev1.PodTemplateSpec{}
	for _, file := range []string{"daemonset.yaml", "app.yaml", "sidecar.yaml"} {
		for _, o := range decode(t, file) {
			switch v := o.(type) {
			case *appsv1.DaemonSet:
				list[v.Name] = &v.Spec.Template
				same(t, v.Name, v.Spec.Selector.MatchLabels, v.Spec.Template.Labels)
			case *appsv1.Deployment:
				list[v.Name] = &v.Spec.Template
				same(t, v.Name, v.Spec.Selector.MatchLabels, v.Spec.Template.Labels)
			}
		}
	}
	return list
}

// same checks that a selector selects a pod.
func same(t *testing.T, name string, selector, labels map[string]string) {
	t.Helper()
	for k, v := range selector {
		if labels[k] != v {
			t.Errorf("%s: its selector wants %s=%s, its pods have %v", name, k, v, labels)
		}
	}
}

// cache returns the container of the sidecar.
func cache(t *testing.T, pod *corev1.PodTemplateSpec) *corev1.Container {
	t.Helper()
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if list[i].Name == "cachesidecar" {
				return &list[i]
			}
		}
	}
	t.Fatal("no container cachesidecar")
	return nil
}

// TestManifests checks that all manifests decode, that every mounted volume exists, that
// services and probes name ports that there are, and that containers have no rights.
func TestManifests(t *testing.T) {
	decode(t, "base.yaml")
	for name, pod := range pods(t) {
		var volumes []string
		for _, v := range pod.Spec.Volumes {
			volumes = append(volumes, v.Name)
		}
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			for _, m := range c.VolumeMounts {
				if !slices.Contains(volumes, m.Name) {
					t.Errorf("%s: %s mounts %s, which is no volume", name, c.Name, m.Name)
				}
			}
		}
		if name == "app" {
			continue
		}
		c := cache(t, pod)
		if s := c.SecurityContext; s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation ||
			s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem || fmt.Sprint(s.Capabilities.Drop) != "[ALL]" || len(s.Capabilities.Add) > 0 {
			t.Errorf("%s: the security context of the sidecar is %v", name, s)
		}
		if p := pod.Spec.SecurityContext; p == nil || p.RunAsNonRoot == nil || !*p.RunAsNonRoot || *p.RunAsUser != 65532 ||
			p.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s: the security context of the pod is %v", name, p)
		}
		grace := int64(40)
		if len(pod.Spec.Containers) == 1 && pod.Spec.Containers[0].Name == "app" {
			grace += 60 // the app ends first, and the time is the pod's
		}
		if *pod.Spec.TerminationGracePeriodSeconds < grace {
			t.Errorf("%s: it is killed after %d s, want %d", name, *pod.Spec.TerminationGracePeriodSeconds, grace)
		}
		for _, probe := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe} { // what they fail is restarted
			if probe == nil || probe.Exec == nil || fmt.Sprint(probe.Exec.Command) != "[/cachesidecar ping --alive --timeout=8s]" || probe.TimeoutSeconds <= 8 {
				t.Errorf("%s: a sidecar that lives may be restarted: %v", name, probe)
			}
		}
		for _, probe := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
			if probe != nil && probe.HTTPGet != nil && !hasPort(c, probe.HTTPGet.Port.String()) {
				t.Errorf("%s: a probe asks port %s", name, probe.HTTPGet.Port.String())
			}
		}
	}
	base := decode(t, "base.yaml")
	headless(t, find[*corev1.Service](t, base, "cachesidecar-peers"), pods(t)["cachesidecar"])
	headless(t, find[*corev1.Service](t, decode(t, "sidecar.yaml"), "app-cache"), pods(t)["app-with-sidecar"])
	policed(t, find[*networkingv1.NetworkPolicy](t, base, "cachesidecar"), pods(t)["cachesidecar"])
	policed(t, find[*networkingv1.NetworkPolicy](t, decode(t, "sidecar.yaml"), "app-cache"), pods(t)["app-with-sidecar"])
	if pod := pods(t)["app-with-sidecar"]; pod.Spec.InitContainers[0].RestartPolicy == nil ||
		*pod.Spec.InitContainers[0].RestartPolicy != corev1.ContainerRestartPolicyAlways {
		t.Error("the native sidecar is an init container that must end")
	}
}

// policed checks that a network policy is about a pod, and that only pods of its kind reach the
// ports between sidecars.
func policed(t *testing.T, policy *networkingv1.NetworkPolicy, pod *corev1.PodTemplateSpec) {
	t.Helper()
	same(t, policy.Name, policy.Spec.PodSelector.MatchLabels, pod.Labels)
	between := 0
	for _, rule := range policy.Spec.Ingress {
		for _, p := range rule.Ports {
			switch p.Port.String() {
			case "7946", "7947":
				between++
				if len(rule.From) != 1 || rule.From[0].PodSelector == nil {
					t.Errorf("%s: others reach port %s", policy.Name, p.Port)
				} else {
					same(t, policy.Name, rule.From[0].PodSelector.MatchLabels, pod.Labels)
				}
			case "7948":
				if len(rule.From) == 0 {
					t.Errorf("%s: all reach port %s", policy.Name, p.Port)
				}
			}
		}
		if len(rule.Ports) == 0 {
			t.Errorf("%s: a rule is for all ports", policy.Name)
		}
	}
	if between != 3 {
		t.Errorf("%s: %d rules for the ports between sidecars, want 3", policy.Name, between)
	}
}

func hasPort(c *corev1.Container, name string) bool {
	return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == name })
}

// headless checks the service by which pods find each other.
func headless(t *testing.T, s *corev1.Service, pod *corev1.PodTemplateSpec) {
	t.Helper()
	same(t, s.Name, s.Spec.Selector, pod.Labels)
	if s.Spec.ClusterIP != corev1.ClusterIPNone || !s.Spec.PublishNotReadyAddresses {
		t.Errorf("%s is not headless, or hides pods that are not ready: they would never find each other", s.Name)
	}
	for _, p := range s.Spec.Ports {
		if !hasPort(cache(t, pod), p.TargetPort.String()) {
			t.Errorf("%s leads to port %s", s.Name, p.TargetPort.String())
		}
	}
}

// TestConfigs gives the real command the configuration and the arguments of the manifests,
// and compares the memory that they need with the limit of the container.
func TestConfigs(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "cluster.key")
	if out, err := exec.Command(sidecars.Command(t), "key", "generate", "--out", key).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	config := filepath.Join(dir, "config.yaml")
	text := find[*corev1.ConfigMap](t, decode(t, "base.yaml"), "cachesidecar").Data["config.yaml"]
	text = strings.ReplaceAll(text, "/etc/cachesidecar-key/cluster.key", key)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cachesidecar", "app-with-sidecar"} {
		c := cache(t, pods(t)[name])
		var args []string
		for _, a := range c.Args {
			args = append(args, strings.NewReplacer("$(NODE)", "node-1", "$(POD)", "pod-1", "$(POD_IP)", "127.0.0.1",
				"/etc/cachesidecar-key/cluster.key", key, "/etc/cachesidecar/config.yaml", config).Replace(a))
		}
		args[0] = "show"
		out, err := exec.Command(sidecars.Command(t), append([]string{"config"}, args...)...).CombinedOutput()
		if err != nil {
			t.Errorf("%s: config %q: %v\n%s", name, args, err, out)
			continue
		}
		limit, need := c.Resources.Limits.Memory().Value()>>20, int64(0)
		_, last, _ := bytes.Cut(out, []byte("# Such a process needs "))
		if _, err := fmt.Fscan(bytes.NewReader(last), &need); err != nil || need == 0 {
			t.Errorf("%s: no memory is stated: %q", name, last)
		}
		if limit < need || limit > need+8 || c.Resources.Requests.Memory().Value()>>20 != limit {
			t.Errorf("%s: %d MiB, want %d or little more, and as much requested", name, limit, need)
		}
		for _, want := range []string{"7946", "7947", "7948", ".svc.cluster.local:7946", "127.0.0.1"} {
			if !bytes.Contains(out, []byte(want)) {
				t.Errorf("%s: the settings lack %s:\n%s", name, want, out)
			}
		}
	}
}
