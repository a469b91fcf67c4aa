#pragma once
/* Counting how long things take, and the text format that Prometheus reads
 * (prometheus.io/docs/instrumenting/exposition_formats). */

#include "basic/macro.h"

#define HISTOGRAM_BUCKETS 13U /* and one for what took longer */

typedef struct Histogram {
        uint64_t bucket[HISTOGRAM_BUCKETS + 1];
        uint64_t sum_usec;
} Histogram;

void histogram_add(Histogram *h, uint64_t usec);
uint64_t histogram_count(const Histogram *h);

/* The lines before a metric's values. type: "counter", "gauge", "histogram". */
void metric_head(FILE *f, const char *name, const char *type, const char *help);
/* labels: "method=\"Version\",code=\"OK\"", or "". Their values must need no escaping. */
void metric_value(FILE *f, const char *name, const char *labels, uint64_t value);
void metric_seconds(FILE *f, const char *name, const char *labels, uint64_t usec);
/* All lines of a histogram, in seconds. */
void metric_histogram(FILE *f, const char *name, const char *labels, const Histogram *h);
