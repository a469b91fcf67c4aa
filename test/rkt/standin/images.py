"""Images that are there: list, cat-manifest, rm. An image of its own for each name, as rkt has it."""
import fcntl
import json
import os
import sys
import time
from contextlib import contextmanager

from .common import Fail, compact, complain, put

@contextmanager
def database(store):
    with open(f"{store.cas}/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            with open(f"{store.cas}/images.json") as f:
                images = json.load(f)
        except FileNotFoundError:
            images = {}
        before = json.dumps(images)
        yield images
        if json.dumps(images) != before:
            with open(f"{store.cas}/images.json.new", "w") as f:
                json.dump(images, f)
            os.rename(f"{store.cas}/images.json.new", f"{store.cas}/images.json")


def find(store, name, command="add"):
    """By hash or name; the latest of several."""
    with database(store) as images:
        if name.startswith("sha512-"):
            found = [h for h in images if h.startswith(name)]
            if len(found) == 1:
                return found[0]
            raise Fail(f"{command}: error finding images: no image IDs found" if command == "add" else
                       f"{command}: no image IDs found")
        found = sorted((i["import_time"], h) for h, i in images.items() if name in (i["url"], i["name"]))
        if not found:
            raise Fail(f'{command}: error finding images: unable to fetch image from image name "{name}": either image was not '
                       "found in the store or store was disabled and fetching from remote yielded nothing or it was disabled")
        return found[-1][1]


def list_images(store, flags, words, rest):
    with database(store) as images:
        items = [{"id": h, "name": i["name"], "import_time": i["import_time"], "last_used_time": i["last_used_time"],
                  "size": i["size"]} for h, i in images.items()]
    items.sort(key=lambda i: i["import_time"])
    if flags.get("format", [""])[-1] == "json":
        put(compact(items) if items else "null")
    else:
        put("ID\tNAME\tSIZE\tIMPORT TIME\tLAST USED")
        for i in items:
            put(f'{i["id"][:19]}\t{i["name"]}\t{i["size"]}\t-\t-')


def cat_manifest(store, flags, words, rest):
    hash_ = find(store, words[0], "cat-manifest")
    with database(store) as images:
        sys.stdout.write(json.dumps(images[hash_]["manifest"], indent="\t") + "\n")


def remove_image(store, hash_):
    with database(store) as images:
        images.pop(hash_, None)
    # What a pod runs on stays until the pod goes, as rkt's tree store does.
    if not any(hash_ == a.get("image_id") for n in os.listdir(store.run)
               for a in load_apps(f"{store.run}/{n}/apps.json").values()):
        import shutil
        shutil.rmtree(f"{store.cas}/tree/{hash_}", ignore_errors=True)


def load_apps(path):
    try:
        with open(path) as f:
            return json.load(f)
    except (OSError, ValueError):
        return {}


def remove_images(store, words):
    done = 0
    for w in words:
        try:
            hash_ = find(store, w, "rm")
        except Fail:
            complain("rm: no image IDs found" if w.startswith("sha512-") else
                     f'rm: cannot find aci satisfying name: "{w}" and labels: [] in the local store')
            continue
        remove_image(store, hash_)
        put(f'successfully removed aci for image: "{hash_}"')
        done += 1
    if done:
        complain(f"rm: {done} image(s) successfully removed")


def remove(store, flags, words, rest):
    remove_images(store, words)
