"""What fuzzing feeds: one function per format that outsiders can write, each over raw bytes.

A target returns for data that is valid and for data that is refused with one sentence (`InputError`). Every other
exception, and any result that does not survive its own round trip, is a finding. tests/security runs the targets over
the seeds and over everything that was found; fuzz/run.py runs them under atheris.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tuneopt.errors import LONGEST_SENTENCE, InputError, visible

Target = Callable[[bytes], None]

LARGEST_ANALYSED = 60
"""Runs of a table that are analysed here; more take seconds, and differ in nothing but their number."""


@contextmanager
def expected() -> Iterator[None]:
    """Let `InputError` pass when its sentence is one line of bounded length that steers no terminal."""
    try:
        yield
    except InputError as error:
        sentence = str(error)
        assert sentence and sentence == visible(sentence) and len(sentence) <= LONGEST_SENTENCE, repr(sentence)


@contextmanager
def file_with(data: bytes, name: str) -> Iterator[Path]:
    """A file of that name that holds ``data``, in memory where the system allows it."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        yield path


def study(data: bytes) -> None:
    """A study file."""
    from tuneopt.search.study.file import read_study

    with file_with(data, "study.yaml") as path, expected():
        read_study(path)


def recipe(data: bytes) -> None:
    """A recipe of a corpus."""
    from tuneopt.data.recipe.file import read_recipe

    with file_with(data, "recipe.yaml") as path, expected():
        read_recipe(path)


def record(data: bytes) -> None:
    """A trial record, as its file's text; a wrong id is also tried as the right one, which leads deeper."""
    from tuneopt.ledger import TrialRecord
    from tuneopt.ledger import table as tables
    from tuneopt.spec import identity

    def read(text: bytes) -> None:
        with expected():
            found = TrialRecord.from_json(text)
            assert TrialRecord.from_json(found.to_json()) == found
            table = tables.build([tables.row(found)])
            assert table.num_rows == 1
            tables.points(found)

    read(data)
    try:
        plain = json.loads(data)
        plain["trial"] = identity(plain["spec"])
        text = json.dumps(plain).encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return
    read(text)


def _in_ledger(data: bytes, name: str) -> None:
    """What commands do with a ledger whose document ``name`` holds ``data``, as it is and under a seal that fits."""
    from tuneopt.ledger.seal import seal

    _use_ledger(data, name)
    text = data.decode(errors="replace").strip()
    if text[:1] == "{" and text[-1:] == "}":
        _use_ledger(seal(name, text), name)


def _use_ledger(data: bytes, name: str) -> None:
    from tuneopt import api
    from tuneopt.ledger import Ledger
    from tuneopt.ledger.place import marker_text
    from tuneopt.reporting import read_study

    with file_with(marker_text(), "ledger.json") as path:
        (path.parent / name).parent.mkdir(parents=True)
        (path.parent / name).write_bytes(data)
        ledger = Ledger(path.parent)
        reads = (ledger.table, ledger.curves, lambda: list(ledger.records()), ledger.sweeps, ledger.runs)
        for act in (lambda: api.verify(ledger), *reads, lambda: read_study(ledger), ledger.compact):
            with expected():
                act()
        with expected():
            api.mend(ledger)
            api.verify(ledger)


def sealed_record(data: bytes) -> None:
    """A trial record under its own name in a ledger, with and without a seal that fits."""
    from seeds import record as whole

    _in_ledger(data, f"trials/{whole().trial}.json")


def sealed_sweep(data: bytes) -> None:
    """A sweep under its own name in a ledger."""
    from seeds import whole_sweep

    _in_ledger(data, f"sweeps/{whole_sweep().id}.json")


def account(data: bytes) -> None:
    """The account of a run in a ledger."""
    _in_ledger(data, "runs/20260131T120000000000Z-0a1b2c.json")


def moment(data: bytes) -> None:
    """What a study under way says of itself, as `study status` reads it."""
    from tuneopt.ledger import Ledger
    from tuneopt.run.heartbeat import read_moment

    with file_with(data, "abc.json") as path:
        (path.parent / "studies").mkdir()
        path.rename(path.parent / "studies" / "abc.json")
        with expected():
            under_way = read_moment(Ledger(path.parent), "abc")
            assert under_way is None or under_way.rate >= 0


def lease(data: bytes) -> None:
    """Who holds a sweep."""
    from tuneopt.ledger.lease import parse

    holder = parse(data)
    if holder is not None:
        assert parse(holder.to_json()) == holder or holder.at != holder.at
        assert isinstance(holder.gone, bool)


def marker(data: bytes) -> None:
    """The marker of a ledger."""
    from tuneopt.ledger.place import check_marker

    with expected():
        check_marker(data, "ledger")


def sweep(data: bytes) -> None:
    """A sweep's description in a ledger: read, planned, and written again."""
    from tuneopt.checked import parse_object, plain_tree
    from tuneopt.search.records import stored_sweep

    with expected():
        found = stored_sweep(parse_object(data, "a sweep"), "0")
        again = plain_tree(found.to_dict(), "a sweep")
        assert stored_sweep(again, "0") == found
        if found.replicates <= 5:
            [spec.id for spec in found.state({}).pending[:50]]


def compacted(data: bytes) -> None:
    """The compacted file of a ledger, as it is and under a seal that fits: read, or passed over."""
    from tuneopt.ledger.compaction import resealed

    _compacted(data)
    _compacted(resealed(data))


def _compacted(data: bytes) -> None:
    from seeds import record as whole

    from tuneopt.ledger import Ledger

    with file_with(data, "trials.parquet") as path:
        root = path.parent / "ledger"
        (root / "compacted").mkdir(parents=True)
        path.rename(root / "compacted" / "trials.parquet")
        with expected():
            ledger = Ledger(root)
            ledger.put(whole())  # rows count only where the trial has its file
            ledger.table()
            ledger.curves()
            list(ledger.records())
            ledger.verify()


def _results(data: bytes, ending: str) -> None:
    """A table, up to what `report --json` says of it; a large one is only read."""
    from tuneopt.analysis.document import summary
    from tuneopt.analysis.inputs import load

    with file_with(data, f"results{ending}") as path, expected():
        inputs = load(path)
        if len(inputs.runs) <= LARGEST_ANALYSED:
            json.dumps(summary(inputs), allow_nan=False)


def results_csv(data: bytes) -> None:
    """A table of results as CSV."""
    _results(data, ".csv")


def results_json(data: bytes) -> None:
    """A table of results as JSON."""
    _results(data, ".json")


def results_parquet(data: bytes) -> None:
    """A table of results as Parquet."""
    _results(data, ".parquet")


def tracker_csv(data: bytes) -> None:
    """A tracker's export as CSV."""
    _results(data, ".csv")


def tracker_json(data: bytes) -> None:
    """A tracker's export as JSON: runs with a configuration and a summary."""
    _results(data, ".json")


def scale(data: bytes) -> None:
    """A scale file: read, written into a specification, and its figures."""
    from tuneopt.api import scale_facts
    from tuneopt.architecture import Scale
    from tuneopt.scale_files import find_scale

    with file_with(data, "made.yaml") as path, expected():
        found = find_scale(str(path))
        assert Scale(**json.loads(json.dumps(found.to_dict()))) == found
        json.dumps(scale_facts(str(path)).to_dict(), allow_nan=False)


def scale_word(data: bytes) -> None:
    """The shorthand of a scale."""
    from tuneopt.scale_files import find_scale

    with expected():
        find_scale(data.decode(errors="replace"))


def manifest(data: bytes) -> None:
    """The manifest of a prepared corpus."""
    from tuneopt.data.manifest import MANIFEST_FILE, Manifest

    with file_with(data, MANIFEST_FILE) as path, expected():
        found = Manifest.read(path.parent)
        assert Manifest.from_dict(json.loads(json.dumps(found.to_dict()))) == found
        found.check(path.parent)


def shard(data: bytes) -> None:
    """A token shard, as its manifest's sizes allow it."""
    from tuneopt.data.manifest import Shard
    from tuneopt.data.shards import map_shard

    with file_with(data, "train-00000.arrow") as path, expected():
        for tokens in (4, max(1, len(data) // 2)):
            entry = Shard(path.name, tokens, max(1, len(data)), "0" * 64)
            assert sum(int(view.sum()) * 0 + len(view) for view in map_shard(path.parent, entry)) == tokens


def tokenizer(data: bytes) -> None:
    """A tokenizer file, then a text through it."""
    from tuneopt.data.tokenizer import load_tokenizer

    with file_with(data, "tokenizer.json") as path, expected():
        load_tokenizer(path).encode("a text of some words", add_special_tokens=False)


def checkpoint(data: bytes) -> None:
    """A checkpoint: read, or passed over."""
    import torch

    from tuneopt.training.checkpoint import CheckpointStore

    with file_with(data, "step-000000001.pt") as path, expected():
        CheckpointStore(path.parent).load_newest(torch.device("cpu"))


def words(data: bytes) -> None:
    """What follows ``--set``, ``--grid`` and ``--start``, one per line, on a search space."""
    from tuneopt.commands.options import parse_grids, parse_values
    from tuneopt.search.space import load_space

    lines = data.decode(errors="replace").splitlines()[:6]
    with expected():
        pinned = parse_values(lines[0:2], "--set")
        space = (
            load_space("adamw")
            .on("nano", pinned, parse_grids(lines[2:4]))
            .begin_at(parse_values(lines[4:6], "--start"))
        )
        assert type(space).from_dict(json.loads(json.dumps(space.to_dict()))) == space


TARGETS: dict[str, Target] = {
    each.__name__: each
    for each in (
        study, recipe, record, sealed_record, sealed_sweep, account, marker, sweep, compacted, results_csv,
        results_json, results_parquet, tracker_csv, tracker_json, scale, scale_word, manifest, shard, tokenizer,
        checkpoint, words, moment, lease,
    )
}  # fmt: skip
"""Every target by name."""

JSON_TARGETS = (
    "record", "sealed_record", "sealed_sweep", "account", "marker", "sweep", "results_json", "tracker_json", "manifest",
    "tokenizer", "moment", "lease",
)  # fmt: skip
"""Those whose data is JSON, which a mutator can change without breaking its syntax."""

YAML_TARGETS = ("study", "recipe", "scale")
"""Those whose data is YAML: a JSON document is one as well."""

PARQUET_TARGETS = ("results_parquet", "compacted")
"""Those whose data is Parquet: a mutator changes rows or columns, and writes them again."""
