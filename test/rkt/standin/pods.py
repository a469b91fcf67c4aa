"""status, list, stop, rm, gc, cat-manifest."""
import json
import os
import signal
import sys
import time

from .common import Fail, compact, complain, fault, put


def one(flags, name, default=""):
    return flags.get(name, [default])[-1]


def seconds(text):
    for suffix, factor in (("ms", 1e-3), ("s", 1), ("m", 60), ("h", 3600)):
        if text.endswith(suffix):
            return float(text[:-len(suffix)] or 0) * factor
    return {"true": -1.0, "false": 0.0, "": 0.0}.get(text, 0.0)


def describe(pod):
    """As rkt has it, with its fault: the apps in here are said to run once they are there, at the pod's times."""
    d, running = pod.load("pod.json", {}), pod.running()
    o = {"name": pod.uuid, "state": "running" if running else "exited garbage" if d.get("garbage") else "exited"}
    if d.get("networks"):
        o["networks"] = d["networks"]
    apps = pod.apps()
    if apps:
        o["app_names"] = list(apps)
        o["apps"] = []
        for name, a in apps.items():
            ended = os.path.exists(f"{pod.rootfs}/rkt/status/{name}")
            x = {"name": name, "state": "exited" if ended or not running else "running", "created_at": d["created"],
                 "started_at": d.get("started", 0)}
            if ended:
                with open(f"{pod.rootfs}/rkt/status/{name}") as f:
                    x["exit_code"] = int(f.read() or 0)
            x["image_id"] = a["image_id"]
            o["apps"].append({**x, **({"mounts": a["mounts"]} if a["mounts"] else {})})
    o["created_at"] = d.get("created", 0) // 10**9
    if d.get("started"):
        o["started_at"] = d["started"] // 10**9
    for k in ("user_annotations", "user_labels"):
        if d.get(k):
            o[k] = d[k]
    return o


def status(store, flags, words, rest):
    if len(words) != 1:
        raise Fail("status: must provide exactly one UUID")
    if one(flags, "format") not in ("", "json", "json-pretty"):
        raise Fail(f'Error: invalid argument "{one(flags, "format")}" for --format={one(flags, "format")}: '
                   f'Invalid format option: {one(flags, "format")}')
    pod = store.find_pod(words[0], "status: problem retrieving pod")
    wait = seconds(one(flags, "wait-ready"))
    end = time.monotonic() + wait
    while wait and not (pod.running() and pod.ready()):
        if 0 < wait and time.monotonic() > end:
            raise Fail("status: error waiting for pod readiness: context deadline exceeded")
        time.sleep(0.01)
    o = describe(pod)
    if one(flags, "format") == "json":
        put(compact(o))
    elif one(flags, "format") == "json-pretty":
        put(json.dumps(o, indent="\t"))
    else:
        put(f'state={o["state"]}\npid={pod.leader()}\nexited={"false" if pod.running() else "true"}')


def list_pods(store, flags, words, rest):
    items = []
    for name in store.pod_names():
        try:
            items.append(describe(store.find_pod(name)))
        except (Fail, KeyError, OSError):
            pass  # it is being removed
    if one(flags, "format") == "json":
        put(compact(items) if items else "null")
    else:
        put("UUID\tAPP\tIMAGE NAME\tSTATE\tCREATED\tSTARTED\tNETWORKS")
        for o in items:
            put(f'{o["name"][:8]}\t{(o.get("app_names") or ["-"])[0]}\t-\t{o["state"]}\t-\t-\t-')


def stop(store, flags, words, rest):
    failed = 0
    for w in words:
        try:
            pod = store.find_pod(w, "stop: cannot get pod")
        except Fail as f:
            complain(f.text)
            failed += 1
            continue
        leader = pod.leader()
        if not leader:
            put(f'pod "{pod.uuid}" is already stopped')
            continue
        try:
            os.kill(leader, signal.SIGKILL if one(flags, "force") == "true" else signal.SIGTERM)
        except ProcessLookupError:
            pass
        put(f'"{pod.uuid}"')
    if failed:
        raise Fail(f"stop: failed to stop {failed} pod(s)")


def destroy(pod):
    import shutil

    from . import images, network
    network.take_down(pod)
    held = {a["image_id"] for a in pod.apps().values()}
    shutil.rmtree(pod.dir)
    with images.database(pod.store) as known:
        known = set(known)
    others = {a["image_id"] for n in pod.store.pod_names() for a in images.load_apps(f"{pod.store.run}/{n}/apps.json").values()}
    for h in held - known - others:
        shutil.rmtree(f"{pod.store.cas}/tree/{h}", ignore_errors=True)


def remove(store, flags, words, rest):
    failed = 0
    for w in words:
        try:
            pod = store.find_pod(w, "rm: cannot get pod")
            if pod.running():
                raise Fail(f'rm: pod "{pod.uuid}" is currently running')
            fault("rm", "middle")
            destroy(pod)
            put(f'"{pod.uuid}"')
        except Fail as f:
            complain(f.text)
            failed += 1
    if failed:
        raise Fail("rm: failed to remove one or more pods")


def collect(store, flags, words, rest):
    for name in store.pod_names():
        pod = store.find_pod(name)
        if pod.running():
            continue
        d = pod.load("pod.json", {})
        if not d.get("garbage"):
            complain(f'gc: moving pod "{pod.uuid}" to garbage')
            pod.save("pod.json", {**d, "garbage": True})
        if one(flags, "mark-only") != "true":
            put(f'Garbage collecting pod "{pod.uuid}"')
            destroy(pod)


def version(store, flags, words, rest):
    put("rkt Version: 1.30.0\nappc Version: 0.8.11\nGo Version: stand-in\nFeatures: none")


def cat_manifest(store, flags, words, rest):
    pod = store.find_pod(words[0], "cat-manifest: problem retrieving pod")
    d = pod.load("pod.json", {})
    o = {"acVersion": "1.30.0", "acKind": "PodManifest",
         "apps": [{"name": n, "image": {"id": a["image_id"]}, "app": {"exec": a["argv"]}} for n, a in pod.apps().items()],
         "volumes": None, "isolators": None, "annotations": d.get("annotations", []), "ports": d.get("ports", []),
         "userAnnotations": d.get("user_annotations", {}), "userLabels": d.get("user_labels", {})}
    sys.stdout.write(json.dumps(o, indent="\t") + "\n")
