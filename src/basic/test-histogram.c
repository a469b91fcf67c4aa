#include "basic/histogram.h"

#include "basic/test.h"

static void test_times_fall_into_their_buckets_and_buckets_add_up(void) {
        Histogram h = {};
        char *text = NULL;
        size_t size;
        FILE *f;

        histogram_add(&h, 0);
        histogram_add(&h, 100);       /* a bound is part of its bucket */
        histogram_add(&h, 101);
        histogram_add(&h, 60000000);
        histogram_add(&h, 60000001);
        histogram_add(&h, 3600000000);
        CHECK_EQ(histogram_count(&h), 6);

        f = open_memstream(&text, &size);
        CHECK(f);
        metric_head(f, "x_seconds", "histogram", "Some help.");
        metric_histogram(f, "x_seconds", "a=\"b\"", &h);
        metric_histogram(f, "y_seconds", "", &h);
        metric_value(f, "z", "", 7);
        fclose(f);
        CHECK(startswith(text, "# HELP x_seconds Some help.\n# TYPE x_seconds histogram\n"));
        CHECK(strstr(text, "\nx_seconds_bucket{a=\"b\",le=\"0.0001\"} 2\nx_seconds_bucket{a=\"b\",le=\"0.0005\"} 3\n"));
        CHECK(strstr(text, "\nx_seconds_bucket{a=\"b\",le=\"60\"} 4\nx_seconds_bucket{a=\"b\",le=\"+Inf\"} 6\n"
                           "x_seconds_sum{a=\"b\"} 3720.000202\nx_seconds_count{a=\"b\"} 6\n"));
        CHECK(strstr(text, "\ny_seconds_bucket{le=\"+Inf\"} 6\ny_seconds_sum 3720.000202\ny_seconds_count 6\n"));
        CHECK(strstr(text, "\nz 7\n"));
        free(text);
}

TEST_MAIN(TEST_CASE(test_times_fall_into_their_buckets_and_buckets_add_up))
