"""What `harness doctor` prints for people."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from textwrap import wrap
from typing import Any

from harness.doctor.machine import HUB_TIMEOUT
from harness.pipeline.estimate import size
from harness.report.listing import width_of_terminal
from harness.report.words import visible

# A column narrower than this reads badly, and is left to the terminal to break.
_LEAST = 24

# How the data of a task are called, by where they would come from.
_DATA = {
    "shipped": "shipped with the package",
    "data folder": "under --data-dir",
    "cached": "in the hub's cache",
    "hub": "from the hub",
    "hub, after a login": "from the hub, after a login",
    "missing": "with --data-dir alone",
}


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a whole report."""
    yield from _block("machine", _machine(found).items())
    yield from _block("data", _data(found["data"]).items())
    yield from _block("judges", _judges(found["judges"]))
    if found["model"] is not None:
        yield from _block("model", _model(found["model"]).items())
    if found["problems"]:
        yield from _block(
            "what stops a run", [(f"{n}.", text) for n, text in enumerate(found["problems"], 1)]
        )
    elif found["model"] is None:
        yield "Nothing stops a run. What a model wants: harness doctor MODEL"
    yield from (found["model"] or {}).get("commands", [])


def _block(title: str, rows: Collection[tuple[str, str]]) -> Iterator[str]:
    """Yield a title and its rows; a name that is to be typed is never broken in two."""
    before, width = max(len(name) for name, _ in rows) + 4, width_of_terminal()
    yield title
    for name, text in rows:
        text = visible(text)
        room = len(text) if width is None else max(width - before, _LEAST)
        first, *rest = wrap(text, max(room, 1), break_long_words=False, break_on_hyphens=False) or [""]
        yield f"  {name:{before - 2}}{first}"
        yield from (" " * before + line for line in rest)
    yield ""


def _machine(found: Mapping[str, Any]) -> dict[str, str]:
    device, hub = found["device"], found["hub"]
    gpus = [f"{gpu['name']}, {size(gpu['memory_bytes'])}" for gpu in device["gpus"]]
    cpu = f"{device['cores']} core{'' if device['cores'] == 1 else 's'}, {size(device['memory_bytes'])} of memory"
    driver = f", driver {device['driver']}" if device["driver"] else ""
    states = {
        "offline": "offline, as HF_HUB_OFFLINE says",
        "reachable": f"{hub['host']} answers in {hub['seconds']} s",
        "unreachable": f"{hub['host']} did not answer within {HUB_TIMEOUT:g} s",
    }
    here = [f"{each['extra']} ({each['version']})" for each in found["extras"] if each["version"]]
    rows = {
        "versions": ", ".join(f"{name} {version}" for name, version in found["versions"].items()),
        "GPU": f"{'; '.join(gpus)}{driver}" if gpus else f"none{driver}: {cpu}",
        **({"CPU": cpu} if gpus else {}),
        **({"note": device["note"]} if device["note"] else {}),
        "free": f"{size(device['memory_free_bytes'])} of memory, {size(device['disk_free_bytes'])} of disk here",
        **{f"engine {each['engine']}": each["unusable"] or "can be used" for each in found["engines"]},
        "hub": f"{states[hub['state']]}; {'a token is set' if hub['has_token'] else 'no token'}",
        "extras": ", ".join(here) or "none",
    }
    lacking = {
        f"  {each['extra']}": f"{each['for']}: {each['install']}"
        for each in found["extras"]
        if not each["version"]
    }
    return rows | lacking


def _data(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    of = {where: [row["task"] for row in rows if row["data"] == where] for where in _DATA}
    return {_DATA[where]: ", ".join(tasks) for where, tasks in of.items() if tasks}


def _judges(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    by_need: dict[str | None, list[str]] = {}
    for row in rows:
        by_need.setdefault(row["needs"], []).append(row["judge"])
    ready = by_need.pop(None, [])
    needs = [f"{', '.join(names)}: {need}" for need, names in by_need.items()]
    return [
        ("at hand", ", ".join(ready)),
        *((("" if n else "not yet"), text) for n, text in enumerate(needs)),
    ]


def _model(model: Mapping[str, Any]) -> dict[str, str]:
    rows = {"name": model["name"], "path": model["path"]}
    if "memory" not in model:
        return rows
    if model["is_moe"]:
        shape = (
            f"{len(model['moe_layers'])} MoE layers, {model['experts_per_layer']} experts each, "
            f"{model['experts_per_token']} per token"
        )
        rows["experts"] = f"{model['model_type']}: {shape}"
    else:
        rows["experts"] = "none: a dense model can be compared with another one"
    weights, memory = model["weights"], model["memory"]
    stored = f"{size(weights['bytes'])} on disk" if weights["on_disk"] else "not downloaded"
    rows["parameters"] = f"{model['parameters']:,}, {stored}"
    if model.get("quantization"):
        rows["quantised"] = f"{model['quantization']}; capture, evaluation: {model['quantized']['capture']}"
    state, detail = model["thinking"]["state"], model["thinking"]["detail"]
    rows["thinking"] = detail if state == "none" else f"{state}: {detail}"
    here = f"{size(memory['available_bytes'])} on {memory['device']}"
    rows["memory"] = f"capture, evaluation about {size(memory['evaluate_bytes'])} of {here}"
    if model["is_moe"]:
        stops = model["not_trained"] or memory["train_does_not_fit"]
        needs = f"{memory['trained_experts']} experts about {size(memory['train_bytes'])}"
        rows["training"] = f"no: {stops}" if stops else f"of {needs}; --dry-run counts your prompts"
    return rows
