#include "basic/fiber.h"
#include "basic/string-util.h"
#include "basic/test.h"
#include "systemd/fake-systemd.h"
#include "systemd/internal.h"

static bool over_bus;
static sd_event *event;
static FakeSystemd *fake;
static Systemd *systemd;

typedef struct Seen {
        unsigned n, first; /* when, in the order of all reports */
        char last[128];
        pid_t pid;
        int code, status;
        UnitWatch *free_me;
} Seen;

static void on_state(const char *unit, const UnitState *state, void *userdata) {
        static unsigned order;
        Seen *seen = userdata;

        CHECK(!fiber_current());
        order++;
        if (seen->n == 0)
                seen->first = order;
        seen->n++;
        seen->pid = state->main_pid;
        seen->code = state->exec_main_code;
        seen->status = state->exec_main_status;
        snprintf(seen->last, sizeof seen->last, "%s %s %s", unit, strempty(state->load_state),
                 strempty(state->active_state));
        seen->free_me = unit_watch_free(seen->free_me);
}

static void wait_for(Seen *seen, unsigned n) {
        for (int i = 0; i < 1000 && seen->n < n; i++)
                CHECK_EQ(fiber_sleep(5 * USEC_PER_MSEC), 0);
        CHECK_EQ(seen->n, n);
}

static void settle(void) {
        CHECK_EQ(fiber_sleep(50 * USEC_PER_MSEC), 0);
}

static void run(FiberFunc func) {
        for (int i = 0; i < 2; i++) {
                bool can = true;

                over_bus = i == 1;
                CHECK(sd_event_new(&event) >= 0);
                fake = fake_systemd_new(event);
                CHECK_EQ(systemd_new(event, &systemd), 0);
                CHECK_EQ(systemd_set_addresses(systemd, over_bus ? fake->bus_address : NULL,
                                               over_bus ? NULL : fake->private_address), 0);
                if (!over_bus)
                        fake_systemd_listen(fake);
                else if ((can = fake_systemd_start_daemon(fake)))
                        fake_systemd_join(fake);
                if (can)
                        CHECK_EQ(fiber_run(event, func, NULL), 0);
                else
                        printf("# no dbus-daemon here\n");
                systemd = systemd_free(systemd);
                fake = fake_systemd_free(fake);
                event = sd_event_unref(event);
        }
}

static void interrupt(void) {
        if (over_bus)
                fake_systemd_leave(fake);
        else
                fake_systemd_hang_up(fake, /* keep_listening= */ true);
}

static int follow_body(void *userdata) {
        _cleanup_(unit_watch_freep) UnitWatch *w = NULL;
        UnitWatch *second;
        Seen seen = {};
        FakeUnit *u;

        u = fake_systemd_add_unit(fake, "a.service", "active");
        u->main_pid = 7;
        CHECK_EQ(unit_watch_new(systemd, "a.service", on_state, &seen, &w), 0);
        CHECK_EQ(unit_watch_new(systemd, "a.service", on_state, &seen, &second), -EEXIST);
        CHECK_EQ(seen.n, 0);
        wait_for(&seen, 1);
        CHECK_STREQ(seen.last, "a.service loaded active");
        CHECK_EQ(seen.pid, 7);

        u->active = u->sub = "failed";
        u->main_pid = 0;
        u->exec_main_code = CLD_EXITED;
        u->exec_main_status = 3;
        fake_systemd_changed(fake, u);
        wait_for(&seen, 2);
        CHECK_STREQ(seen.last, "a.service loaded failed");
        CHECK_EQ(seen.code, CLD_EXITED);
        CHECK_EQ(seen.status, 3);

        /* Nothing changed: nothing is said, and nothing is asked. */
        fake_systemd_changed(fake, u);
        settle();
        CHECK_EQ(seen.n, 2);
        CHECK_EQ(fake->n_get_all, 1);

        fake_systemd_unload(fake, u);
        wait_for(&seen, 3);
        CHECK_STREQ(seen.last, "a.service not-found inactive");
        /* Its removal is read once, although the reading itself makes PID 1 load and remove a unit. */
        for (int i = 0; i < 5; i++)
                settle();
        CHECK_EQ(fake->n_get_all, 2);
        CHECK_EQ(seen.n, 3);
        return 0;
}

static void a_unit_is_followed_to_its_end(void) {
        run(follow_body);
}

static int reconnect_body(void *userdata) {
        _cleanup_(unit_watch_freep) UnitWatch *w = NULL;
        Seen seen = {};
        FakeUnit *u;

        u = fake_systemd_add_unit(fake, "a.service", "active");
        CHECK_EQ(unit_watch_new(systemd, "a.service", on_state, &seen, &w), 0);
        wait_for(&seen, 1);
        interrupt();
        u->active = "failed";
        settle();
        if (over_bus)
                fake_systemd_join(fake);
        wait_for(&seen, 2);
        CHECK_STREQ(seen.last, "a.service loaded failed");
        /* The new connection hears signals as well. */
        u->active = "active";
        fake_systemd_changed(fake, u);
        wait_for(&seen, 3);
        CHECK_STREQ(seen.last, "a.service loaded active");
        return 0;
}

static void after_a_reconnection_the_state_is_read_again(void) {
        run(reconnect_body);
}

static int bus_restart_body(void *userdata) {
        _cleanup_(unit_watch_freep) UnitWatch *w = NULL;
        UnitState state;
        Seen seen = {};
        FakeUnit *u;

        u = fake_systemd_add_unit(fake, "a.service", "active");
        CHECK_EQ(unit_watch_new(systemd, "a.service", on_state, &seen, &w), 0);
        wait_for(&seen, 1);
        if (over_bus)
                fake_systemd_stop_daemon(fake);
        else
                fake_systemd_hang_up(fake, /* keep_listening= */ false);
        u->active = "failed";
        CHECK_EQ(fiber_sleep(300 * USEC_PER_MSEC), 0);
        CHECK(!systemd_is_connected(systemd));
        if (over_bus) {
                CHECK(fake_systemd_start_daemon(fake));
                fake_systemd_join(fake);
        } else
                fake_systemd_listen(fake);
        /* A call made meanwhile waits, and is answered. */
        CHECK_EQ(unit_get_state(systemd, "a.service", &state, NULL), 0);
        CHECK_STREQ(state.active_state, "failed");
        unit_state_done(&state);
        wait_for(&seen, 2);
        CHECK_STREQ(seen.last, "a.service loaded failed");
        return 0;
}

static void a_bus_that_was_restarted_is_found_again(void) {
        run(bus_restart_body);
}

/* The connection is broken, and the loop has not yet been told. */
static int broken_body(void *userdata) {
        _cleanup_(unit_watch_freep) UnitWatch *w = NULL;
        Seen seen = {};

        CHECK_EQ(systemd_connect(systemd, NULL), 0);
        fake_systemd_add_unit(fake, "a.service", "active");
        if (over_bus)
                fake_systemd_stop_daemon(fake);
        else
                fake_systemd_hang_up(fake, /* keep_listening= */ false);
        CHECK_EQ(unit_watch_new(systemd, "a.service", on_state, &seen, &w), 0);
        settle();
        if (over_bus) {
                CHECK(fake_systemd_start_daemon(fake));
                fake_systemd_join(fake);
        } else
                fake_systemd_listen(fake);
        wait_for(&seen, 1);
        CHECK_STREQ(seen.last, "a.service loaded active");
        return 0;
}

static void a_watch_that_meets_a_broken_connection_waits_for_the_next(void) {
        run(broken_body);
}

static int reload_body(void *userdata) {
        _cleanup_(unit_watch_freep) UnitWatch *w = NULL, *w2 = NULL;
        Seen seen = {}, seen2 = {};
        FakeUnit *u2;

        fake_systemd_add_unit(fake, "a.service", "active");
        u2 = fake_systemd_add_unit(fake, "b.service", "active");
        CHECK_EQ(unit_watch_new(systemd, "a.service", on_state, &seen, &w), 0);
        CHECK_EQ(unit_watch_new(systemd, "b.service", on_state, &seen2, &w2), 0);
        wait_for(&seen, 1);
        wait_for(&seen2, 1);
        u2->loaded = false;
        fake_systemd_reload(fake);
        wait_for(&seen2, 2);
        settle();
        /* One list for all, and a look at what is missing from it. */
        CHECK_EQ(seen.n, 1);
        CHECK_EQ(fake->n_list, 1);
        CHECK_EQ(fake->n_get_all, 3);
        CHECK_STREQ(seen2.last, "b.service not-found inactive");
        return 0;
}

static void a_reload_costs_one_list(void) {
        run(reload_body);
}

static int start_body(void *userdata) {
        _cleanup_(unit_properties_freep) UnitProperties *p = NULL;
        _cleanup_(unit_watch_freep) UnitWatch *w = NULL;
        Seen seen = {};

        CHECK_EQ(unit_properties_new(&p), 0);
        CHECK_EQ(unit_watch_new(systemd, "a.service", on_state, &seen, &w), 0);
        wait_for(&seen, 1);
        CHECK_STREQ(seen.last, "a.service not-found inactive");
        CHECK_EQ(unit_start_wait(systemd, "a.service", p, 0, NULL), 0);
        wait_for(&seen, 2);
        CHECK_STREQ(seen.last, "a.service loaded active");
        CHECK_EQ(seen.pid, 4711);
        return 0;
}

static void a_watch_may_come_before_its_unit(void) {
        run(start_body);
}

static int free_body(void *userdata) {
        Seen seen = {};
        FakeUnit *u;

        u = fake_systemd_add_unit(fake, "a.service", "active");
        CHECK_EQ(unit_watch_new(systemd, "a.service", on_state, &seen, &seen.free_me), 0);
        wait_for(&seen, 1);
        CHECK(!seen.free_me);
        fake_systemd_changed(fake, u);
        settle();
        CHECK_EQ(seen.n, 1);

        seen = (Seen) {};
        CHECK_EQ(unit_watch_new(systemd, "a.service", on_state, &seen, &seen.free_me), 0);
        CHECK(!(seen.free_me = unit_watch_free(seen.free_me)));
        settle();
        CHECK_EQ(seen.n, 0);
        return 0;
}

static void a_watch_may_be_freed_in_its_callback(void) {
        run(free_body);
}

static int many_body(void *userdata) {
        static UnitWatch *watches[600];
        Seen seen = {};
        FakeUnit *u = NULL;

        /* More units than dbus-daemon allows matches (512). */
        for (size_t i = 0; i < ELEMENTSOF(watches); i++) {
                _cleanup_free_ char *name = strprintf("u%zu.service", i);

                u = fake_systemd_add_unit(fake, name, "active");
                CHECK_EQ(unit_watch_new(systemd, name, on_state, &seen, watches + i), 0);
        }
        wait_for(&seen, ELEMENTSOF(watches));
        CHECK_EQ(fake->n_get_all, ELEMENTSOF(watches));
        u->active = "failed";
        fake_systemd_changed(fake, u);
        wait_for(&seen, ELEMENTSOF(watches) + 1);
        u = fake_systemd_unit(fake, "u0.service");
        u->active = "failed";
        fake_systemd_changed(fake, u);
        wait_for(&seen, ELEMENTSOF(watches) + 2);
        CHECK(systemd_is_connected(systemd));
        interrupt();
        settle();
        if (over_bus)
                fake_systemd_join(fake);
        wait_for(&seen, 2 * ELEMENTSOF(watches) + 2);
        for (size_t i = 0; i < ELEMENTSOF(watches); i++)
                watches[i] = unit_watch_free(watches[i]);
        return 0;
}

static void more_units_than_the_bus_allows_matches_can_be_followed(void) {
        run(many_body);
}

static int noted_body(void *userdata) {
        static const char *const patterns[] = { "u*.service", "v*.service" };
        static UnitWatch *watches[40];
        _cleanup_(unit_watch_freep) UnitWatch *w = NULL;
        Seen seen = {}, last = {}, failed = {};
        FakeUnit *u;

        for (size_t i = 0; i < ELEMENTSOF(watches); i++) {
                _cleanup_free_ char *name = strprintf("u%zu.service", i);

                fake_systemd_add_unit(fake, name, "active")->main_pid = 7;
        }
        u = fake_systemd_add_unit(fake, "v.service", "failed");
        CHECK(!systemd_noted_running(systemd, "u0.service"));
        CHECK_EQ(systemd_note_running(systemd, patterns, ELEMENTSOF(patterns), NULL), 0);
        CHECK_EQ(fake->n_list, 1);
        CHECK(systemd_noted_running(systemd, "u0.service"));
        CHECK(systemd_noted_running(systemd, "u39.service"));
        CHECK(!systemd_noted_running(systemd, "u40.service"));
        CHECK(!systemd_noted_running(systemd, "v.service"));

        /* The one whose end is to be found out is looked at before those that run. */
        for (size_t i = 0; i < ELEMENTSOF(watches); i++) {
                _cleanup_free_ char *name = strprintf("u%zu.service", i);

                CHECK_EQ(unit_watch_new(systemd, name, on_state, i == ELEMENTSOF(watches) - 1 ? &last : &seen,
                                        watches + i), 0);
        }
        CHECK_EQ(unit_watch_new(systemd, "v.service", on_state, &failed, &w), 0);
        systemd_forget_running(systemd);
        CHECK(!systemd_noted_running(systemd, "u0.service"));
        wait_for(&failed, 1);
        CHECK_STREQ(failed.last, "v.service loaded failed");
        CHECK(seen.n == 0 || failed.first < seen.first + READS_MAX);

        /* These are told as ever, and what happens to them meanwhile isn't missed. */
        u = fake_systemd_unit(fake, "u39.service");
        u->active = u->sub = "failed";
        fake_systemd_changed(fake, u);
        wait_for(&seen, ELEMENTSOF(watches) - 1);
        for (int i = 0; i < 1000 && !strstr(last.last, "failed"); i++)
                CHECK_EQ(fiber_sleep(5 * USEC_PER_MSEC), 0);
        CHECK_STREQ(last.last, "u39.service loaded failed");
        CHECK(fake->n_get_all <= ELEMENTSOF(watches) + 2);
        for (size_t i = 0; i < ELEMENTSOF(watches); i++)
                watches[i] = unit_watch_free(watches[i]);
        return 0;
}

static void what_is_known_to_run_is_looked_at_last(void) {
        run(noted_body);
}

static int brief_body(void *userdata) {
        _cleanup_(unit_watch_freep) UnitWatch *w = NULL, *w2 = NULL, *w3 = NULL;
        Seen seen = {}, seen2 = {}, seen3 = {};
        FakeUnit *u, *u2;

        u = fake_systemd_add_unit(fake, "a.service", "active");
        u->main_pid = 7;
        u2 = fake_systemd_add_unit(fake, "b.service", "failed");
        u2->exec_main_code = CLD_EXITED;
        u2->exec_main_status = 5;
        CHECK_EQ(unit_watch_new_running(systemd, "a.service", "/x/a.service", on_state, &seen, &w), 0);
        wait_for(&seen, 1);
        CHECK_STREQ(seen.last, "a.service loaded active");
        CHECK_EQ(seen.pid, 7);
        CHECK_EQ(fake->n_get, 1);
        CHECK_EQ(fake->n_get_all, 0);

        /* Those that ended in the meantime, or are gone, are read. */
        CHECK_EQ(unit_watch_new_running(systemd, "b.service", "/x/b.service", on_state, &seen2, &w2), 0);
        wait_for(&seen2, 1);
        CHECK_STREQ(seen2.last, "b.service loaded failed");
        CHECK_EQ(seen2.code, CLD_EXITED);
        CHECK_EQ(seen2.status, 5);
        CHECK_EQ(unit_watch_new_running(systemd, "c.service", "/x/c.service", on_state, &seen3, &w3), 0);
        wait_for(&seen3, 1);
        CHECK_STREQ(seen3.last, "c.service not-found inactive");
        CHECK_EQ(fake->n_get_all, 2);

        /* Its end is told by signals alone, as ever. */
        u->active = u->sub = "failed";
        u->main_pid = 0;
        u->exec_main_code = CLD_EXITED;
        u->exec_main_status = 3;
        fake_systemd_changed(fake, u);
        wait_for(&seen, 2);
        CHECK_STREQ(seen.last, "a.service loaded failed");
        CHECK_EQ(seen.status, 3);
        CHECK_EQ(fake->n_get_all, 2);

        /* A change before the answer is not overlooked. */
        w = unit_watch_free(w);
        seen = (Seen) {};
        u->active = "active";
        u->sub = "running";
        u->main_pid = 8;
        CHECK_EQ(unit_watch_new_running(systemd, "a.service", "/x/a.service", on_state, &seen, &w), 0);
        u->active = u->sub = "failed";
        fake_systemd_changed(fake, u);
        for (int i = 0; i < 1000 && !strstr(seen.last, "failed"); i++)
                CHECK_EQ(fiber_sleep(5 * USEC_PER_MSEC), 0);
        CHECK_STREQ(seen.last, "a.service loaded failed");

        /* After a reconnection nothing is taken for granted. */
        u2->active = u2->sub = "dead";
        interrupt();
        settle();
        if (over_bus)
                fake_systemd_join(fake);
        for (int i = 0; i < 1000 && !strstr(seen2.last, "dead"); i++)
                CHECK_EQ(fiber_sleep(5 * USEC_PER_MSEC), 0);
        CHECK_STREQ(seen2.last, "b.service loaded dead");
        return 0;
}

static void of_what_was_just_started_only_the_process_is_asked_for(void) {
        run(brief_body);
}

static int spoof_body(void *userdata) {
        _cleanup_(unit_watch_freep) UnitWatch *w = NULL;
        const char *name, *path = SYSTEMD_PATH "/unit/a_2eservice";
        Seen seen = {};
        sd_bus *bus;
        sd_bus_message *m;

        if (!over_bus)
                return 0;
        fake_systemd_add_unit(fake, "a.service", "active");
        CHECK_EQ(unit_watch_new(systemd, "a.service", on_state, &seen, &w), 0);
        wait_for(&seen, 1);

        /* Somebody else on the bus writes to our unique name. */
        CHECK(sd_bus_new(&bus) >= 0);
        CHECK(sd_bus_set_address(bus, fake->bus_address) >= 0);
        CHECK(sd_bus_set_bus_client(bus, 1) >= 0);
        CHECK(sd_bus_start(bus) >= 0);
        CHECK(sd_bus_get_unique_name(systemd->bus, &name) >= 0);
        CHECK(sd_bus_message_new_signal(bus, &m, path, PROPERTIES_INTERFACE, "PropertiesChanged") >= 0);
        CHECK(sd_bus_message_append(m, "sa{sv}as", SYSTEMD_UNIT, 1, "ActiveState", "s", "failed", 0) >= 0);
        CHECK(sd_bus_message_set_destination(m, name) >= 0);
        CHECK(sd_bus_send(bus, m, NULL) >= 0);
        CHECK(sd_bus_flush(bus) >= 0);
        sd_bus_message_unref(m);
        sd_bus_flush_close_unref(bus);
        settle();
        CHECK_EQ(seen.n, 1);
        return 0;
}

static void signals_of_others_are_not_believed(void) {
        run(spoof_body);
}

static int control_body(void *userdata) {
        _cleanup_(unit_properties_freep) UnitProperties *p = NULL;
        _cleanup_error_ Error e = ERROR_INIT;
        UnitInfo *infos;
        UnitState state;
        FakeUnit *u;
        size_t n;

        u = fake_systemd_add_unit(fake, "a.service", "active");
        u->main_pid = 9;
        fake_systemd_add_unit(fake, "b.service", "active");
        CHECK_EQ(unit_kill(systemd, "a.service", "all", 15, &e), 0);
        CHECK_STREQ(fake->last_kill, "a.service all-fail 15");
        CHECK_EQ(unit_kill(systemd, "b.service", "main", 9, &e), -ESRCH);
        CHECK_EQ(e.code, GRPC_NOT_FOUND);
        error_clear(&e);
        CHECK_EQ(unit_kill(systemd, "c.service", "main", 9, &e), -ESRCH);
        CHECK_EQ(unit_properties_new(&p), 0);
        CHECK_EQ(unit_properties_add_u64(p, "MemoryMax", 1), 0);
        CHECK_EQ(unit_set_properties(systemd, "a.service", p, NULL), 0);
        CHECK_EQ(unit_set_properties(systemd, "c.service", p, NULL), -ENOENT);
        CHECK_EQ(unit_get_state(systemd, "a.service", &state, NULL), 0);
        CHECK_STREQ(state.load_state, "loaded");
        CHECK_STREQ(state.control_group, "/fake");
        CHECK_EQ(state.main_pid, 9);
        unit_state_done(&state);
        CHECK_EQ(unit_get_state(systemd, "c.service", &state, NULL), 0);
        CHECK_STREQ(state.load_state, "not-found");
        unit_state_done(&state);
        CHECK_EQ(systemd_list_units(systemd, "*", &infos, &n, NULL), 0);
        CHECK_EQ(n, 2);
        CHECK_STREQ(infos[0].active_state, "active");
        unit_info_free_array(infos, n);
        return 0;
}

static void units_are_read_changed_and_signalled(void) {
        run(control_body);
}

static int nobody_call(void *userdata) {
        UnitState state;

        return unit_get_state(systemd, "a.service", &state, userdata);
}

static int nobody_body(void *userdata) {
        _cleanup_error_ Error e = ERROR_INIT;
        Fiber *f;
        int r;

        if (over_bus)
                fake_systemd_stop_daemon(fake);
        else
                fake_systemd_hang_up(fake, /* keep_listening= */ false);
        CHECK_EQ(fiber_spawn(event, "call", nobody_call, &e, NULL, &f), 0);
        settle();
        CHECK(!fiber_is_done(f));
        fiber_cancel(f);
        CHECK_EQ(fiber_join(f, &r), 0);
        CHECK_EQ(r, -ECANCELED);
        fiber_unref(f);
        return 0;
}

static void a_call_without_systemd_can_be_cancelled(void) {
        run(nobody_body);
}

TEST_MAIN(TEST_CASE(a_unit_is_followed_to_its_end), TEST_CASE(after_a_reconnection_the_state_is_read_again),
          TEST_CASE(a_bus_that_was_restarted_is_found_again),
          TEST_CASE(a_watch_that_meets_a_broken_connection_waits_for_the_next), TEST_CASE(a_reload_costs_one_list),
          TEST_CASE(a_watch_may_come_before_its_unit), TEST_CASE(a_watch_may_be_freed_in_its_callback),
          TEST_CASE(more_units_than_the_bus_allows_matches_can_be_followed),
          TEST_CASE(what_is_known_to_run_is_looked_at_last),
          TEST_CASE(of_what_was_just_started_only_the_process_is_asked_for), TEST_CASE(signals_of_others_are_not_believed), TEST_CASE(units_are_read_changed_and_signalled),
          TEST_CASE(a_call_without_systemd_can_be_cancelled))
