/* /org/rktlet1/image/HEX: one image, by the digest of its configuration. */

#include "bus/internal.h"

#include "basic/json-util.h"

char *image_object_path(const Image *i) {
        const char *hex = startswith(i->id, "sha256:");

        return strprintf(IMAGE_PATH "/%s", hex ? hex : i->id);
}

const char *image_display_name(const Image *i) {
        return i->repo_tags && i->repo_tags[0]         ? i->repo_tags[0]
               : i->repo_digests && i->repo_digests[0] ? i->repo_digests[0]
                                                       : i->id;
}

int image_object_find(sd_bus *bus, const char *path, const char *interface, void *userdata, void **ret_found,
                      sd_bus_error *error) {
        const char *hex = startswith(path, IMAGE_PATH "/");
        _cleanup_free_ char *id = NULL;
        Bus *b = userdata;
        Image *i;

        if (!hex)
                return 0;
        id = strprintf("sha256:%s", hex);
        if (!id)
                return -ENOMEM;
        if (b->leaving_image && streq(b->leaving_image->id, id))
                i = b->leaving_image;
        else {
                /* A prefix would do for the store, but an object has one path. */
                i = strlen(hex) == ID_LENGTH ? image_store_find(b->manager->images, id) : NULL;
                if (!i || !streq(i->id, id))
                        return 0;
        }
        *ret_found = i;
        return 1;
}

int image_node_enumerator(sd_bus *bus, const char *prefix, void *userdata, char ***ret, sd_bus_error *error) {
        Bus *b = userdata;
        _cleanup_free_ Image **images = image_store_list(b->manager->images);
        _cleanup_strv_free_ char **l = NULL;

        if (!images)
                return -ENOMEM;
        for (Image **i = images; *i; i++) {
                _cleanup_free_ char *path = image_object_path(*i);

                if (!path || strv_push(&l, path) < 0)
                        return -ENOMEM;
                TAKE_PTR(path);
        }
        *ret = TAKE_PTR(l);
        return 0;
}

static int get_string(sd_bus *bus, const char *path, const char *interface, const char *property,
                      sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const Image *i = userdata;
        const ImageConfig *c = &i->config;
        const char *value = streq(property, "Id")                 ? i->id
                            : streq(property, "ManifestDigest")   ? i->manifest_digest
                            : streq(property, "Architecture")     ? c->architecture
                            : streq(property, "OS")               ? c->os
                            : streq(property, "Created")          ? c->created
                            : streq(property, "User")             ? c->user
                            : streq(property, "WorkingDirectory") ? c->working_dir
                                                                  : c->stop_signal;

        return sd_bus_message_append(reply, "s", strempty(value));
}

static int get_list(sd_bus *bus, const char *path, const char *interface, const char *property, sd_bus_message *reply,
                    void *userdata, sd_bus_error *error) {
        const Image *i = userdata;
        char **l = streq(property, "Tags")         ? i->repo_tags
                   : streq(property, "Digests")    ? i->repo_digests
                   : streq(property, "Entrypoint") ? i->config.entrypoint
                                                   : i->config.cmd;

        return sd_bus_message_append_strv(reply, l);
}

static int get_number(sd_bus *bus, const char *path, const char *interface, const char *property,
                      sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const Image *i = userdata;

        if (streq(property, "Pinned"))
                return sd_bus_message_append(reply, "b", (int) i->pinned);
        return sd_bus_message_append(reply, "t", i->size);
}

static int get_labels(sd_bus *bus, const char *path, const char *interface, const char *property,
                      sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const Image *i = userdata;
        int r;

        r = sd_bus_message_open_container(reply, 'a', "{ss}");
        for (size_t k = 0; r >= 0 && i->config.label_keys && i->config.label_keys[k]; k++)
                r = sd_bus_message_append(reply, "{ss}", i->config.label_keys[k], i->config.label_values[k]);
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int task_remove(Task *t, Error *error) {
        return image_store_remove(t->bus->manager->images, t->image->id, error);
}

static int method_remove(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return bus_task_run(the_bus(), m, task_remove, NULL, NULL, userdata, error);
}

const sd_bus_vtable image_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_PROPERTY("Id", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Tags", "as", get_list, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Digests", "as", get_list, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("ManifestDigest", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Size", "t", get_number, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Pinned", "b", get_number, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Architecture", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("OS", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Created", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("User", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("WorkingDirectory", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Entrypoint", "as", get_list, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Command", "as", get_list, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("StopSignal", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Labels", "a{ss}", get_labels, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_METHOD_WITH_ARGS("Remove", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, method_remove, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_VTABLE_END,
};
