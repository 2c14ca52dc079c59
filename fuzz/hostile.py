"""Values that break readers, and the ways to put one into a document."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 2**31, 2**63, -(2**63) - 1, 10**400, 0.0, -0.0, 0.1, 1e308, -1e308, 5e-324, "", " ",
    "0", "nan", "NaN", "Infinity", "1e309", "x", "x" * 9000, "\ud800", "\udfff", "a\x00b", "\x1b[31m", "a\nb",
    "\u202e", "../../../etc/passwd", "/etc/passwd", "C:\\x", "train-00000.arrow", "=1+1", "<script>", [], {}, [1], [[]],
    [None], ["\ud800"], {"a": 1}, {"": ""}, {"\ud800": 1}, [[1, 2, 3]], [[1e-9, 1e308]],
)  # fmt: skip
"""What one field of a document is replaced by: other types, bounds, text that is none, paths, markup."""

Place = tuple[Any, ...]


def places(tree: Any, here: Place = ()) -> Iterator[Place]:
    """Every place in a JSON document but its root; of a list the first two entries stand for all."""
    if here:
        yield here
    if isinstance(tree, dict):
        for key in tree:
            yield from places(tree[key], (*here, key))
    elif isinstance(tree, list):
        for index in range(min(2, len(tree))):
            yield from places(tree[index], (*here, index))


def replaced(tree: Any, place: Place, value: Any) -> Any:
    """A copy of the document with one value replaced."""
    changed = copy.deepcopy(tree)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return changed


def json_mutated(data: bytes, rng: random.Random) -> bytes:
    """A JSON document with one thing changed."""
    return json.dumps(mutated(json.loads(data), rng)).encode(errors="surrogatepass")


def yaml_mutated(data: bytes, rng: random.Random) -> bytes:
    """A YAML document with one thing changed, as the JSON that it also is."""
    import yaml

    return json.dumps(mutated(yaml.safe_load(data), rng), default=str).encode(errors="surrogatepass")


def parquet_mutated(data: bytes, rng: random.Random) -> bytes:
    """A Parquet table with a cell, a column or a row changed; what its metadata says is kept."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(pa.BufferReader(data))
    table = file.read()
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    name = rng.choice(list(columns))
    way = rng.randrange(5)
    if way == 0:
        del columns[name]
    elif way == 1:
        columns[rng.choice(list(columns))] = columns[name]
    elif way == 2:
        columns = {key: [*values, *values[:1]] for key, values in columns.items()}
    elif way == 3:
        columns[name] = [rng.choice(VALUES)] * table.num_rows
    else:
        columns[name] = [mutated(value, rng) if isinstance(value, dict | list) else None for value in columns[name]]
    arrays = {key: pa.array(values) for key, values in columns.items()}
    sink = pa.BufferOutputStream()
    changed = pa.table(arrays).replace_schema_metadata(table.schema.metadata)
    with pq.ParquetWriter(sink, changed.schema) as writer:
        writer.write_table(changed)
        # The seal of a compaction stands in the file's own metadata, which the schema does not show.
        writer.add_key_value_metadata({"tuneopt_seal": "sha256:" + "0" * 64})
    return bytes(sink.getvalue().to_pybytes())


def mutated(tree: Any, rng: random.Random) -> Any:
    """The document with one thing changed: a value replaced, left out, doubled, wrapped, or a key renamed."""
    found = list(places(tree))
    if not found:
        return rng.choice(VALUES)
    place = rng.choice(found)
    way = rng.randrange(6)
    if way <= 2:
        return replaced(tree, place, copy.deepcopy(rng.choice(VALUES)))
    changed = copy.deepcopy(tree)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    key = place[-1]
    if way == 3:
        del inner[key]
    elif way == 4:
        inner[key] = [inner[key], inner[key]] if rng.random() < 0.5 else {"a": inner[key]}
    elif isinstance(inner, dict):
        inner[str(rng.choice(VALUES))[:50]] = inner.pop(key)
    else:
        inner.append(copy.deepcopy(inner[key]))
    return changed
