"""Preparing a corpus from a recipe: evaluation text first, then the training mixture without it.

The steps, each of which finds what an earlier attempt left: fix revisions; find the tokenizer; write the shards of the
evaluation sources, round by round; make the guard of their hashes; write the training shards; write the manifest. A
corpus exists once its manifest does. The same command goes on from the last finished round, and a finished corpus is
left as it is. What it counted stands in the manifest (`_account`).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tuneopt.data.cache import write_whole
from tuneopt.data.corpus import UNFINISHED, Corpus, open_corpus
from tuneopt.data.manifest import TOKENIZER_FILE, Manifest, SplitEntry, TokenizerEntry, file_sha256
from tuneopt.data.recipe import hub
from tuneopt.data.recipe.guard import Guard
from tuneopt.data.recipe.mixture import Mixture, SourcePosition, Staging
from tuneopt.data.recipe.recipe import LEAVE, Recipe, SourceRecipe
from tuneopt.data.recipe.rounds import Rounds, claim, is_finished, sole_preparation
from tuneopt.data.recipe.units import EQUAL, REPORT, SELECT, SHARED, TRAIN, EncodingJob, check, stamp
from tuneopt.data.recipe.vocabulary import find_tokenizer, identity, read_end
from tuneopt.data.recipe.workers import EncoderPool, Here, Workers
from tuneopt.data.splits import BUCKETS, SPLITS
from tuneopt.data.tokenizer import content_sha256, token_dtype
from tuneopt.spec import InputError, canonical_json

FORMAT = 2
"""Raised whenever the same recipe would give other bytes; then a corpus of an older format counts as another's."""

TELL_SECONDS = 5.0
"""How often a preparation says how far it is."""

EVALUATION, TRAINING = "evaluation", "train"

PoolMaker = Callable[[EncodingJob, Path], EncoderPool]
"""From a job and a folder for rows to whoever encodes."""


@dataclass(frozen=True, slots=True)
class PreparationProgress:
    """How far a preparation is. ``limit`` is None where nobody can know it; ``seconds`` count from its begin here."""

    phase: str
    """``evaluation`` or ``train``."""
    tokens: int
    """Written so far in this phase, by earlier attempts as well."""
    limit: int | None
    new_tokens: int
    """Written by this attempt: what a speed is computed from."""
    seconds: float


def local_pool(workers: int) -> PoolMaker:
    """Encode in that many processes of this machine; 0 for this process itself. The bytes are the same."""
    return lambda job, folder: Workers(job, folder, workers) if workers else Here(job, folder)


def prepare_recipe(
    recipe: Recipe, folder: Path, pool: PoolMaker, progress: Callable[[PreparationProgress], None] = lambda _: None
) -> tuple[Corpus, bool]:
    """Prepare the corpus of a recipe in a folder; the corpus, and whether it was there already.

    Raises `InputError` for sources that cannot be read, are too little or change meanwhile, and for a folder that
    cannot be written or has anything else in it.
    """
    key = _identity(recipe)
    work = folder / UNFINISHED
    if is_finished(folder):
        if work.is_dir():  # left by a kill behind the manifest
            with suppress(InputError), sole_preparation(folder, work):  # the corpus is whole, whoever may write there
                shutil.rmtree(work, ignore_errors=True)
        return _finished(folder, key), True
    with sole_preparation(folder, work):
        if is_finished(folder):  # another process was faster
            shutil.rmtree(work, ignore_errors=True)
            return _finished(folder, key), True
        claim(work, key, folder)
        _Preparation(recipe, folder, pool, progress, key).run()
        shutil.rmtree(work, ignore_errors=True)
    return open_corpus(folder), False


def _finished(folder: Path, key: str) -> Corpus:
    """The corpus that is there; raises `InputError` for one of another recipe, or of files that changed."""
    corpus = open_corpus(folder)
    if (corpus.manifest.recipe or {}).get("identity") != key:
        raise InputError(
            f"{folder} holds a corpus of another recipe, or of files that changed since; "
            "give another folder with --out, or delete this one"
        )
    return corpus


def _identity(recipe: Recipe) -> str:
    """SHA-256 of all that the corpus depends on, as far as it is known before anything is read.

    It stands in the manifest, and tells whether a folder holds this corpus; the content has a fingerprint of its own.
    """
    stamps = [stamp(source) for source in (*recipe.sources, *recipe.evaluation)]
    plain = [FORMAT, recipe.name, recipe.describe(), identity(recipe.tokenizer), stamps]
    return hashlib.sha256(canonical_json(plain).encode()).hexdigest()


class _Preparation:
    """One preparation, from whatever an earlier one left; ``key`` is the recipe's identity when it began."""

    def __init__(
        self, recipe: Recipe, folder: Path, pool: PoolMaker, progress: Callable[[PreparationProgress], None], key: str
    ) -> None:
        self.folder, self.work, self.pool, self.progress, self.key = folder, folder / UNFINISHED, pool, progress, key
        self.asked = recipe
        hub.forget()  # what this process knows of their files may be of an earlier corpus
        self.recipe = self._pinned(recipe)
        self.held_out = 0 if recipe.evaluation else max(1, round(recipe.held_out * BUCKETS))

    def _pinned(self, recipe: Recipe) -> Recipe:
        """The recipe with fixed revisions: those of the first attempt, where there was one.

        A branch of the hub may have moved on since, and what was begun must be finished with the same text.
        """
        path = self.work / "revisions.json"
        if not path.is_file():
            fixed = [hub.pinned(source).hub for source in (*recipe.sources, *recipe.evaluation)]
            write_whole(path, json.dumps([data_set.revision if data_set else None for data_set in fixed]))
        revisions = json.loads(path.read_text(encoding="utf-8"))
        sources = tuple(
            replace(source, hub=replace(source.hub, revision=revision)) if source.hub and revision else source
            for source, revision in zip((*recipe.sources, *recipe.evaluation), revisions, strict=True)
        )
        count = len(recipe.sources)
        return replace(recipe, sources=sources[:count], evaluation=sources[count:])

    def run(self) -> None:
        """Prepare everything; the manifest comes last."""
        recipe = self.recipe
        for source in (*recipe.evaluation, *recipe.sources):  # a mistake in the last source shows after seconds
            check(source, recipe)
        self.text, self.tokenizer, training_bytes = find_tokenizer(recipe, self.work, self.held_out)
        self.end = read_end(self.tokenizer, recipe.tokenizer)
        # The largest id and not the number of entries: files from outside may leave ids out.
        self.vocab_size = max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        self.rounds = Rounds(self.folder, self.work, token_dtype(self.vocab_size))
        # Evaluation text first: which training documents share words with it is known only when all of it was read.
        guard = None
        if recipe.evaluation:
            self._phase(EVALUATION, recipe.evaluation, None, len(recipe.sources))
            self._check_unchanged()
            for split in (SPLITS[SELECT], SPLITS[REPORT]):
                if not self.rounds.shards(split):
                    self.rounds.drop()  # so that a mended recipe may have the folder
                    raise self._empty(split)
            hashes = self.rounds.hashes
            guard = Guard.of(hashes("documents"), hashes("runs"), recipe.ngram)
        self._phase(TRAINING, recipe.sources, guard, 0)
        self._check_unchanged()
        self._write_manifest(guard, training_bytes)

    def _check_unchanged(self) -> None:
        """Raise `InputError` if what was read in this phase may not be what was there at the begin."""
        if _identity(self.asked) != self.key:
            raise InputError(
                f"files of recipe {self.recipe.name} changed while it was prepared; delete {self.folder} and run the "
                "command again"
            )

    def _empty(self, split: str) -> InputError:
        """The error for a split without a document."""
        use = "to train on" if split == SPLITS[TRAIN] else "to evaluate on"
        return InputError(f"recipe {self.recipe.name} leaves no document for the split {split}; give more text {use}")

    def _phase(self, phase: str, sources: Sequence[SourceRecipe], guard: Guard | None, first: int) -> None:
        """Write the shards of a phase, from where its last finished round stands.

        ``first`` is the number of the first source in the whole recipe.
        """
        evaluating = phase == EVALUATION
        # A round is what was committed at once: shards with the positions of all sources behind them. What an earlier
        # attempt wrote after its last round is drawn again, to the same bytes.
        done = [entry for entry in self.rounds.entries if entry.phase == phase]
        if done and done[-1].ended:
            return
        recipe = self.recipe
        job = EncodingJob(
            sources=tuple(sources),
            tokenizer=self.text,
            end=self.end,
            vocab_size=self.vocab_size,
            # Evaluation sources are halved into select and report; else both take their share of the buckets.
            select_end=BUCKETS // 2 if evaluating else self.held_out,
            report_end=BUCKETS if evaluating else 2 * self.held_out,
            guard=guard,
            ngram=recipe.ngram if evaluating else 0,
        )
        rows = self.work / phase
        rows.mkdir(exist_ok=True)
        with closing(self.pool(job, rows)) as pool:
            staging = Staging(sources, recipe, pool, rows)
            mixture = Mixture(
                staging,
                [source.weight for source in sources],
                [source.name for source in sources],
                (SELECT, REPORT) if evaluating else (TRAIN,),
                recipe.evaluation_tokens if evaluating else recipe.tokens,
                LEAVE if evaluating else recipe.when_exhausted,
                done[-1].standing if done else [SourcePosition() for _ in sources],
            )
            self._draw(phase, mixture, staging, first)
        shutil.rmtree(rows, ignore_errors=True)  # units that were encoded ahead and are not wanted

    def _draw(self, phase: str, mixture: Mixture, staging: Staging, first: int) -> None:
        """Draw documents and commit a round whenever a shard is full, and the last one at the end of the mixture."""
        began = told = time.monotonic()
        before = mixture.taken
        while (drawn := mixture.draw(self.recipe.shard_tokens - self.rounds.fullest)) is not None:
            self.rounds.append(drawn, first + drawn.source)
            if self.rounds.fullest >= self.recipe.shard_tokens:
                self.rounds.commit(phase, mixture.positions)
                for source, position in enumerate(mixture.positions):
                    staging.forget(source, position.unit)  # not before the commit: a kill would need them again
            if (now := time.monotonic()) - told >= TELL_SECONDS:
                told, taken = now, mixture.taken
                limit = self.recipe.tokens if phase == TRAINING else self.recipe.evaluation_tokens
                self.progress(PreparationProgress(phase, taken, limit, taken - before, now - began))
        self.rounds.commit(phase, mixture.positions, mixture.ended)

    def _write_manifest(self, guard: Guard | None, training_bytes: int) -> None:
        """The tokenizer's file and then the manifest, with which the corpus exists."""
        recipe = self.recipe
        account = _account(recipe, self.rounds, guard)
        splits = {}
        for split in SPLITS:
            shards = self.rounds.shards(split)
            documents = sum(shard.boundaries.documents for shard in shards if shard.boundaries)
            if not documents:
                raise self._empty(split)
            size = sum(row["splits"][split]["bytes"] for row in account["mixture"])  # of UTF-8, for bits per byte
            tokens = sum(shard.tokens for shard in shards)
            splits[split] = SplitEntry(documents, size, tokens, self.rounds.digests[split].hexdigest(), shards)
        write_whole(self.folder / TOKENIZER_FILE, self.text)  # before the manifest, which has its checksum
        if recipe.tokenizer.train is not None:
            content = content_sha256(self.tokenizer)
        else:  # a file from outside, whatever its spaces and the order of its keys
            plain = json.loads(self.text)
            plain.pop("version", None)
            canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
            content = hashlib.sha256(canonical.encode()).hexdigest()
        Manifest(
            corpus=recipe.name,
            vocab_size=self.vocab_size,
            split_rule=_rule(recipe, self.held_out),
            tokenizer=TokenizerEntry(file_sha256(self.folder / TOKENIZER_FILE), content, training_bytes),
            splits=splits,
            versions={name: version(name) for name in ("pyarrow", "tokenizers")},
            recipe={"format": FORMAT, "identity": self.key, "end_of_text": self.end, **account},
        ).write(self.folder)


def _rule(recipe: Recipe, held_out: int) -> str:
    """How documents were split, as a sentence; it is part of the corpus's fingerprint, so its words must not change."""
    bucket = "a document's bucket is the first two bytes of the SHA-256 of its letters (big-endian)"
    if recipe.evaluation:
        return (
            f"{bucket}; evaluation sources: select below {BUCKETS // 2}, report all others; train: the other sources, "
            f"without documents equal to evaluation text or sharing {recipe.ngram} words in a row with it"
        )
    return f"{bucket}; select: below {held_out}, report: from there to below {2 * held_out}, train: all others"


def _account(recipe: Recipe, rounds: Rounds, guard: Guard | None) -> dict[str, Any]:
    """What was counted, as plain data for the manifest: documents, bytes and tokens of every source by split.

    And the recipe in its own words, how its phases ended, and what the guard kept out.
    """
    last = {entry.phase: entry for entry in rounds.entries}
    rows = []
    weights = sum(source.weight for source in recipe.sources)
    for phase, sources in ((TRAINING, recipe.sources), (EVALUATION, recipe.evaluation)):
        if sources:
            for source, position in zip(sources, last[phase].standing, strict=True):
                weight = float(source.weight / weights) if phase == TRAINING else None
                rows.append(_account_of(source, position, phase, weight))
    total = sum(row["splits"]["train"]["tokens"] for row in rows)
    # What each source was to have is its weight; the share is what it came to, in tokens that were written.
    for row in rows:
        if row["phase"] == TRAINING:
            row["share"] = row["splits"]["train"]["tokens"] / total if total else 0.0
    return {
        "said": recipe.describe(),
        "ended": {phase: entry.ended for phase, entry in last.items()},
        "mixture": rows,
        "guard": {
            "ngram": recipe.ngram if guard else 0,
            "evaluation_documents": 0 if guard is None else len(guard.documents),
            "evaluation_runs": 0 if guard is None else len(guard.runs),
            "kept_out_equal": sum(row["kept_out"]["equal"]["documents"] for row in rows),
            "kept_out_shared": sum(row["kept_out"]["shared"]["documents"] for row in rows),
        },
    }


def _account_of(source: SourceRecipe, position: SourcePosition, phase: str, weight: float | None) -> dict[str, Any]:
    """One source's counts: what went into each split, and what the guard kept out, whose tokens were never made."""
    names = ("documents", "bytes", "tokens")
    counted = {fate: dict(zip(names, position.counts.get(str(fate), (0, 0, 0)), strict=True)) for fate in range(5)}
    kept_out = {"equal": counted[EQUAL], "shared": counted[SHARED]}
    return {
        "source": source.name,
        "phase": phase,
        "origin": source.origin,
        "weight": weight,
        "epochs": position.epoch + 1,
        "splits": {split: counted[fate] for fate, split in enumerate(SPLITS)},
        "kept_out": {name: {key: counts[key] for key in names[:2]} for name, counts in kept_out.items()},
    }
