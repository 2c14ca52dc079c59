"""What trackers wrote, read back without the code that wrote it."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32768, 7


def wandb_records(file: Path) -> Iterator[Any]:
    """The records in an offline run of W&B: LevelDB's log format after a header, protocol buffers inside."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, whole = file.read_bytes(), HEADER, b""
    assert data[:4] == b":W&B"
    while place + HEADER <= len(data):
        left = BLOCK - place % BLOCK
        if left < HEADER:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + HEADER])
        if kind == 0:
            break
        whole += data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(whole)
            whole = b""


def wandb_runs(folder: Path) -> dict[str, dict[str, Any]]:
    """Every run below ``folder`` by its id: the record that opened it, rows of its history, its summary, exit codes."""
    import json

    found: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.rglob("run-*.wandb")):
        for record in wandb_records(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                run = found.setdefault(record.run.run_id, {"rows": [], "summary": {}, "exits": [], "files": 0})
                run["run"], run["files"] = record.run, run["files"] + 1
                run["config"] = {item.key: json.loads(item.value_json) for item in record.run.config.update}
                current = run
            elif kind == "history":
                items = record.history.item
                current["rows"].append(
                    {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in items}
                )
            elif kind == "summary":
                items = record.summary.update
                current["summary"] |= {(i.key or i.nested_key[0]): json.loads(i.value_json) for i in items}
            elif kind == "exit":
                current["exits"].append(record.exit.exit_code)
    return found


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> [(step, value), ...] of a folder of event files, as TensorBoard itself reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
