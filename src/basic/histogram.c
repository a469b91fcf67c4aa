#include "basic/histogram.h"

#include <inttypes.h>

/* Upper bounds, and as Prometheus names them: the same text for ever, since it is a label. */
static const struct {
        uint64_t usec;
        const char *label;
} bounds[HISTOGRAM_BUCKETS] = {
        { 100, "0.0001" },   { 500, "0.0005" },     { 1000, "0.001" },    { 2500, "0.0025" },  { 5000, "0.005" },
        { 10000, "0.01" },   { 25000, "0.025" },    { 50000, "0.05" },    { 100000, "0.1" },   { 250000, "0.25" },
        { 1000000, "1" },    { 10000000, "10" },    { 60000000, "60" },
};

void histogram_add(Histogram *h, uint64_t usec) {
        size_t i = 0;

        while (i < HISTOGRAM_BUCKETS && usec > bounds[i].usec)
                i++;
        h->bucket[i]++;
        h->sum_usec += usec;
}

uint64_t histogram_count(const Histogram *h) {
        uint64_t n = 0;

        for (size_t i = 0; i <= HISTOGRAM_BUCKETS; i++)
                n += h->bucket[i];
        return n;
}

void metric_head(FILE *f, const char *name, const char *type, const char *help) {
        fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void name_and_labels(FILE *f, const char *name, const char *labels) {
        fprintf(f, *labels ? "%s{%s} " : "%s%s ", name, labels);
}

void metric_value(FILE *f, const char *name, const char *labels, uint64_t value) {
        name_and_labels(f, name, labels);
        fprintf(f, "%" PRIu64 "\n", value);
}

void metric_seconds(FILE *f, const char *name, const char *labels, uint64_t usec) {
        name_and_labels(f, name, labels);
        fprintf(f, "%" PRIu64 ".%06" PRIu64 "\n", usec / USEC_PER_SEC, usec % USEC_PER_SEC);
}

void metric_histogram(FILE *f, const char *name, const char *labels, const Histogram *h) {
        char whole[256];
        uint64_t n = 0;

        for (size_t i = 0; i <= HISTOGRAM_BUCKETS; i++) {
                n += h->bucket[i];
                fprintf(f, "%s_bucket{%s%sle=\"%s\"} %" PRIu64 "\n", name, labels, *labels ? "," : "",
                        i < HISTOGRAM_BUCKETS ? bounds[i].label : "+Inf", n);
        }
        (void) snprintf(whole, sizeof whole, "%s_sum", name);
        metric_seconds(f, whole, labels, h->sum_usec);
        (void) snprintf(whole, sizeof whole, "%s_count", name);
        metric_value(f, whole, labels, n);
}
