// bench measures CRI runtimes from the outside, over their sockets, as the kubelet would use them: how long calls take,
// what CPU time and memory they cost, and how one compares with another. It is run, as root, in the machine where they are
// (see run, beside it), in a unit of its own. Runtimes are measured in turns, round by round, so that noise hits all alike.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Bench is one run: what is asked for and what is found.
type Bench struct {
	Rounds   int
	Parent   string // the slice that all pods are asked to be in
	LogRoot  string
	Image    string
	BigImage string
	Only     []string

	runtimes  []*Runtime
	ownCgroup string
	results   Results
}

type runtimeFlags []*Runtime

func (f *runtimeFlags) String() string { return "" }
func (f *runtimeFlags) Set(text string) error {
	r, err := parseRuntime(text)
	if err == nil {
		*f = append(*f, r)
	}
	return err
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	b := &Bench{}
	var runtimes runtimeFlags
	var jsonPath, comparePath, showPath, marksPath, only, registry string
	flag.Var(&runtimes, "runtime", "name=NAME,socket=PATH,unit=UNIT,helpers=COMM:COMM; repeat it, ratios are to the first")
	flag.IntVar(&b.Rounds, "rounds", 30, "rounds of each measurement of single calls; those that take long get fewer")
	flag.StringVar(&only, "only", "", "groups to measure, comma-separated: "+strings.Join(groupNames(), ", "))
	flag.StringVar(&jsonPath, "json", "", "write the results there")
	flag.StringVar(&comparePath, "compare", "", "compare with the results of an earlier run")
	flag.StringVar(&showPath, "show", "", "measure nothing, show these results")
	flag.StringVar(&marksPath, "marks", "", "write there when each call began and ended, to read a trace by")
	flag.StringVar(&b.Parent, "parent", "bench.slice", "cgroup parent of all pods")
	flag.StringVar(&b.LogRoot, "logs", "/var/log/pods", "where log directories are made")
	flag.StringVar(&registry, "registry", "127.0.0.1:5000", "where the images are")
	flag.Parse()
	b.runtimes, b.Image, b.BigImage = runtimes, registry+"/bench/tools:1", registry+"/test/big:latest"
	if only != "" {
		b.Only = strings.Split(only, ",")
		for _, name := range b.Only {
			if !slices.Contains(groupNames(), name) {
				return fmt.Errorf("no group %q, there are %s", name, strings.Join(groupNames(), ", "))
			}
		}
	}

	var old *Results
	var err error
	if comparePath != "" {
		if old, err = loadResults(comparePath); err != nil {
			return err
		}
	}
	if showPath != "" {
		shown, err := loadResults(showPath)
		if err != nil {
			return err
		}
		shown.print(os.Stdout, old)
		return nil
	}
	if len(b.runtimes) == 0 {
		return fmt.Errorf("no --runtime given")
	}
	if b.ownCgroup, err = ownCgroup(); err != nil {
		return err
	}
	if marksPath != "" {
		if marks, err = os.Create(marksPath); err != nil {
			return err
		}
	}
	if err := b.measure(); err != nil {
		return err
	}
	if jsonPath != "" {
		if err := b.results.save(jsonPath); err != nil {
			return err
		}
	}
	b.results.print(os.Stdout, old)
	return nil
}

func (b *Bench) measure() error {
	b.results = Results{Date: time.Now().UTC().Format(time.RFC3339), CPUs: runtime.NumCPU(), Rounds: b.Rounds}
	if kernel, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		b.results.Kernel = strings.TrimSpace(string(kernel))
	}
	if _, err := systemctl("start", b.Parent); err != nil {
		return err
	}
	for _, r := range b.runtimes {
		if err := r.connect(); err != nil {
			return err
		}
		version, err := call(r.rt.Version, &cri.VersionRequest{})
		if err != nil {
			return err
		}
		b.results.Runtimes = append(b.results.Runtimes, RuntimeResult{r.Name, version.RuntimeName + " " + version.RuntimeVersion})
		if err := r.clear(); err != nil {
			return err
		}
		if _, err := call(r.img.PullImage, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: b.Image}}); err != nil {
			return err
		}
		// What is fetched once, such as a pause image, is no part of any result.
		warm := b.newPod(r, cri.NamespaceMode_NODE)
		if err := b.up(warm); err != nil {
			return fmt.Errorf("%s: %w", r.Name, err)
		}
		if err := warm.down(); err != nil {
			return fmt.Errorf("%s: %w", r.Name, err)
		}
	}
	for _, g := range groups {
		if len(b.Only) == 0 || slices.Contains(b.Only, g.name) {
			b.measureGroup(g)
		}
	}
	for _, r := range b.runtimes {
		r.disconnect()
	}
	return nil
}

// measureGroup runs the rounds of a group. A runtime that fails is cleaned and measured on; the failure is in the results.
func (b *Bench) measureGroup(g *group) {
	begin := time.Now()
	rounds := max(1, b.Rounds/g.every)
	failed := func(r *Runtime, err error) {
		fmt.Fprintf(os.Stderr, "bench: %s: %s: %v\n", g.name, r.Name, err)
		b.results.fail(g.name, r.Name, err)
		if r.conn == nil {
			_ = r.connect()
		}
		if err := r.clear(); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %s: cleaning up: %v\n", g.name, r.Name, err)
		}
	}
	ready := map[*Runtime]bool{}
	for _, r := range b.runtimes {
		ready[r] = true
		if g.setup != nil {
			if err := g.setup(b, r); err != nil {
				ready[r] = false
				failed(r, err)
			}
		}
	}
	for round := range rounds {
		for i := range b.runtimes {
			// Whoever comes first changes, so that nobody always follows the same neighbour.
			r := b.runtimes[(i+round)%len(b.runtimes)]
			if !ready[r] {
				continue
			}
			if err := g.round(b, r); err != nil {
				failed(r, err)
				if g.setup != nil {
					ready[r] = g.setup(b, r) == nil
				}
			}
		}
	}
	for _, r := range b.runtimes {
		if g.setup != nil {
			if err := r.clear(); err != nil {
				failed(r, err)
			}
		}
	}
	fmt.Fprintf(os.Stderr, "bench: %s: %d rounds in %.0f s\n", g.name, rounds, time.Since(begin).Seconds())
}
