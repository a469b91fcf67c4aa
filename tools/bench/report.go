package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// Results are what a run found, in the order in which it was found.
type Results struct {
	Date     string          `json:"date"`
	Kernel   string          `json:"kernel"`
	CPUs     int             `json:"cpus"`
	Rounds   int             `json:"rounds"`
	Runtimes []RuntimeResult `json:"runtimes"`
	Metrics  []*Metric       `json:"metrics"`
	Failures []Failure       `json:"failures,omitempty"`
}

type RuntimeResult struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Metric is one thing that was measured, for each runtime.
type Metric struct {
	Group  string                `json:"group"`
	Name   string                `json:"name"`
	Unit   string                `json:"unit"`
	Values map[string]*Statistic `json:"values"` // by runtime
}

// Statistic describes what was measured for one runtime. Samples are in the order in which they were taken.
type Statistic struct {
	P50     float64   `json:"p50"`
	P95     float64   `json:"p95"`
	Min     float64   `json:"min"`
	Max     float64   `json:"max"`
	Samples []float64 `json:"samples"`
}

// Failure is what went wrong, and how often.
type Failure struct {
	Group   string `json:"group"`
	Runtime string `json:"runtime"`
	Error   string `json:"error"`
	Count   int    `json:"count"`
}

func (b *Bench) record(group, name, unit string, r *Runtime, value float64) {
	m := b.results.find(group, name)
	if m == nil {
		m = &Metric{Group: group, Name: name, Unit: unit, Values: map[string]*Statistic{}}
		b.results.Metrics = append(b.results.Metrics, m)
	}
	s := m.Values[r.Name]
	if s == nil {
		s = &Statistic{}
		m.Values[r.Name] = s
	}
	s.Samples = append(s.Samples, value)
	sorted := slices.Sorted(slices.Values(s.Samples))
	s.P50, s.P95, s.Min, s.Max = quantile(sorted, .5), quantile(sorted, .95), sorted[0], sorted[len(sorted)-1]
}

// quantile of sorted values, between two of them where it has to be.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	low := int(at)
	if low+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[low] + (at-float64(low))*(sorted[low+1]-sorted[low])
}

func (r *Results) find(group, name string) *Metric {
	for _, m := range r.Metrics {
		if m.Group == group && m.Name == name {
			return m
		}
	}
	return nil
}

func (r *Results) fail(group, runtime string, err error) {
	for i := range r.Failures {
		if f := &r.Failures[i]; f.Group == group && f.Runtime == runtime {
			f.Count++
			return
		}
	}
	r.Failures = append(r.Failures, Failure{group, runtime, err.Error(), 1})
}

func (r *Results) save(path string) error {
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

func loadResults(path string) (*Results, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &Results{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// number prints three digits that matter.
func number(v float64) string {
	switch {
	case v >= 100 || v <= -100 || v == float64(int64(v)):
		return fmt.Sprintf("%.0f", v)
	case v >= 10 || v <= -10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// ratio is a metric's median of one runtime, relative to another's.
func (m *Metric) ratio(to, of string) (float64, bool) {
	a, b := m.Values[to], m.Values[of]
	if a == nil || b == nil || a.P50 == 0 {
		return 0, false
	}
	return b.P50 / a.P50, true
}

// print writes a table. With an older run, what it said is beside each value. Machines and noise differ between runs: then
// look at the ratios.
func (r *Results) print(out io.Writer, old *Results) {
	fmt.Fprintf(out, "%s, Linux %s, %d CPUs, %d rounds; p50 / p95", r.Date, r.Kernel, r.CPUs, r.Rounds)
	if old != nil {
		fmt.Fprintf(out, " (p50 of %s)", old.Date)
	}
	fmt.Fprintln(out)
	for _, runtime := range r.Runtimes {
		fmt.Fprintf(out, "%s: %s\n", runtime.Name, runtime.Version)
	}
	title := map[string]string{}
	for _, g := range groups {
		title[g.name] = g.title
	}
	group := ""
	for _, m := range r.Metrics {
		if m.Group != group {
			group = m.Group
			fmt.Fprintf(out, "\n%-46s", group+":")
			for i, runtime := range r.Runtimes {
				fmt.Fprintf(out, " %24s", runtime.Name)
				if i > 0 {
					fmt.Fprintf(out, " %7s", "ratio")
				}
			}
			if title[group] != "" {
				fmt.Fprintf(out, "\n(%s)", title[group])
			}
			fmt.Fprintln(out)
		}
		r.printMetric(out, m, old)
	}
	r.printPromises(out)
	r.printLimits(out)
	if len(r.Failures) > 0 {
		fmt.Fprintln(out, "\nfailures:")
		for _, f := range r.Failures {
			fmt.Fprintf(out, "%s, %s: %d, the first: %s\n", f.Group, f.Runtime, f.Count, f.Error)
		}
	}
}

func (r *Results) printMetric(out io.Writer, m *Metric, old *Results) {
	var before *Metric
	if old != nil {
		before = old.find(m.Group, m.Name)
	}
	name := m.Name
	if m.Unit != "" {
		name += ", " + m.Unit
	}
	fmt.Fprintf(out, "  %-44s", name)
	for i, runtime := range r.Runtimes {
		cell := "-"
		if s := m.Values[runtime.Name]; s != nil {
			cell = number(s.P50) + " / " + number(s.P95)
		}
		if before != nil && before.Values[runtime.Name] != nil {
			cell += " (" + number(before.Values[runtime.Name].P50) + ")"
		}
		fmt.Fprintf(out, " %24s", cell)
		if i == 0 {
			continue
		}
		cell = "-"
		if ratio, ok := m.ratio(r.Runtimes[0].Name, runtime.Name); ok {
			cell = fmt.Sprintf("%.2f", ratio)
		}
		fmt.Fprintf(out, " %7s", cell)
		if before != nil {
			if ratio, ok := before.ratio(r.Runtimes[0].Name, runtime.Name); ok {
				fmt.Fprintf(out, " (%.2f)", ratio)
			}
		}
	}
	fmt.Fprintln(out)
}

// promise is what the project wants to hold against Debian's containerd with crun.
type promise struct {
	group, name string
	ratio       float64
	atLeast     bool
}

var promises = []promise{
	{"host", "pod + container start", 0.4, false},
	{"host", "start: CPU", 0.5, false},
	{"host", "stop + remove", 0.4, false},
	{"host", "stop + remove: CPU", 0.5, false},
	{"cni", "pod + container start", 0.6, false},
	{"cni", "start: CPU", 0.5, false},
	{"cni", "stop + remove", 0.7, false},
	{"cni", "stop + remove: CPU", 0.5, false},
	{"exec", "ExecSync true", 0.6, false},
	{"parallel10", "starts", 2, true},
	{"log", "throughput", 3, true},
	{"pull", "PullImage", 0.7, false},
	{"scale, 100 pods", "PSS of both", 0.1, false},
	{"scale, 100 pods", "idle CPU in 10 s, daemon and pods", 0.05, false},
	{"scale, 100 pods", "start until Version", 0.2, false},
	{"scale, 100 pods", "start until the lists are complete", 0.2, false},
}

// limits are what the project wants to hold by itself, in the metric's unit.
var limits = []struct {
	group, name string
	most        float64
}{
	{"scale, 100 pods", "start until Version", 50},
	{"scale, 100 pods", "start until the lists are complete", 200},
	{"scale, 100 pods", "PSS of both", 35},
}

func (r *Results) printLimits(out io.Writer) {
	for i, l := range limits {
		m := r.find(l.group, l.name)
		if m == nil || m.Values["rktlet"] == nil {
			continue
		}
		if i == 0 {
			fmt.Fprintln(out, "\nlimits (rktlet's medians):")
		}
		verdict := "held"
		if m.Values["rktlet"].P50 > l.most {
			verdict = "MISSED"
		}
		fmt.Fprintf(out, "  %-60s %6s  ≤ %-5g %s\n", l.group+": "+l.name+", "+m.Unit, number(m.Values["rktlet"].P50), l.most, verdict)
	}
}

func (r *Results) printPromises(out io.Writer) {
	if len(r.Runtimes) != 2 || r.Runtimes[0].Name != "containerd" || r.Runtimes[1].Name != "rktlet" {
		return
	}
	fmt.Fprintln(out, "\npromises (ratio of the medians):")
	for _, p := range promises {
		m := r.find(p.group, p.name)
		if m == nil {
			continue
		}
		ratio, ok := m.ratio("containerd", "rktlet")
		if !ok {
			continue
		}
		limit, held := fmt.Sprintf("≤ %g", p.ratio), ratio <= p.ratio
		if p.atLeast {
			limit, held = fmt.Sprintf("≥ %g", p.ratio), ratio >= p.ratio
		}
		verdict := "held"
		if !held {
			verdict = "MISSED"
		}
		fmt.Fprintf(out, "  %-60s %6.2f  %-7s %s\n", p.group+": "+p.name, ratio, limit, verdict)
	}
}

// checkLog looks whether all lines are there.
func checkLog(path string, lines, size int) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	scanner := bufio.NewScanner(file)
	count := 0
	wanted := []byte(" stdout F " + strings.Repeat("x", size-1))
	for scanner.Scan() {
		if bytes.HasSuffix(scanner.Bytes(), wanted) {
			count++
		}
	}
	if count != lines {
		return fmt.Errorf("%d lines are whole in the log, not %d", count, lines)
	}
	return scanner.Err()
}
