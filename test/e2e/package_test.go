package e2e

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// For test/package: a pod that outlives the test, and the daemon's package.
var patientFolder = flag.String("package-patient", "", "a folder for the names of units of a pod that is kept")

func TestPackagePatient(t *testing.T) {
	if *patientFolder == "" {
		t.Skip("test/package asks for it")
	}
	config := podConfig(t, withNetwork)
	config.Metadata.Name = "patient"
	p := &podT{t: t, config: config, id: do(t, rt.RunPodSandbox, podRequest(config)).PodSandboxId}
	c := p.run(func(c *cri.ContainerConfig) { c.Metadata.Name = "patient" })
	writeFile(t, filepath.Join(*patientFolder, "pod"), p.unit(), 0o600)
	writeFile(t, filepath.Join(*patientFolder, "container"), c.unit(), 0o600)
}

func TestPackagePatientIsWell(t *testing.T) {
	if *patientFolder == "" {
		t.Skip("test/package asks for it")
	}
	unit, err := os.ReadFile(filepath.Join(*patientFolder, "container"))
	if err != nil {
		t.Fatal(err)
	}
	id := strings.TrimSuffix(strings.TrimPrefix(string(unit), "rktlet-ctr-"), ".service")
	c := &ctrT{t: t, id: id}
	equal(t, "state", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
	equal(t, "output", c.sh("echo well"), "well\n")
}
