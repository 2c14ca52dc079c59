"""Preparing a corpus from a recipe: evaluation text first, then the training mixture without it.

Everything unfinished lies in the folder ``.preparing`` of the corpus; the manifest appears last. The same command goes
on from the last finished round, and a finished corpus is left as it is.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tuneopt.data.corpus import UNFINISHED, Corpus, open_corpus
from tuneopt.data.manifest import TOKENIZER_FILE, Manifest, SplitEntry, TokenizerEntry, file_sha256
from tuneopt.data.recipe.account import account
from tuneopt.data.recipe.claim import claim, finished, is_finished, remove_leftovers, sole_preparation, write
from tuneopt.data.recipe.guard import Guard
from tuneopt.data.recipe.hub import pinned
from tuneopt.data.recipe.mixture import Mixture, Standing
from tuneopt.data.recipe.recipe import LEAVE, Recipe, SourceRecipe
from tuneopt.data.recipe.rounds import Rounds
from tuneopt.data.recipe.rows import REPORT, SELECT, TRAIN, Job
from tuneopt.data.recipe.staging import Staging
from tuneopt.data.recipe.stream import forget
from tuneopt.data.recipe.units import check, stamp
from tuneopt.data.recipe.vocabulary import find_tokenizer, identity, read_end
from tuneopt.data.recipe.workers import Here, Pool, Workers
from tuneopt.data.splits import BUCKETS, SPLITS
from tuneopt.data.tokenizer import content_sha256, token_dtype
from tuneopt.spec import InputError, canonical_json

FORMAT = 2
"""Raised whenever the same recipe would give other bytes."""

TELL_SECONDS = 5.0
"""How often a preparation says how far it is."""

EVALUATION, TRAINING = "evaluation", "train"

PoolMaker = Callable[[Job, Path], Pool]
"""From a job and a folder for rows to whoever encodes."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a preparation is. ``limit`` is None where nobody can know it; ``seconds`` count from its begin here."""

    phase: str
    tokens: int
    limit: int | None
    new_tokens: int
    seconds: float


def local_pool(workers: int) -> PoolMaker:
    """Encode in that many processes of this machine; 0 for this process itself."""
    return lambda job, folder: Workers(job, folder, workers) if workers else Here(job, folder)


def prepare_recipe(
    recipe: Recipe,
    folder: Path,
    pool: PoolMaker,
    progress: Callable[[Progress], None] = lambda _: None,
) -> tuple[Corpus, bool]:
    """Prepare the corpus of a recipe in a folder; the corpus, and whether it was there already.

    Raises `InputError` for sources that cannot be read, are too little or change meanwhile, and for a folder that
    cannot be written or has anything else in it.
    """
    key = _identity(recipe)
    work = folder / UNFINISHED
    if is_finished(folder):
        remove_leftovers(folder, work)
        return finished(folder, key), True
    with sole_preparation(folder, work):
        if is_finished(folder):  # another process was faster
            shutil.rmtree(work, ignore_errors=True)
            return finished(folder, key), True
        claim(work, key, folder)
        _Preparation(recipe, folder, work, pool, progress, key).run()
        shutil.rmtree(work, ignore_errors=True)
    return open_corpus(folder), False


def _identity(recipe: Recipe) -> str:
    """SHA-256 of all that the corpus depends on, as far as it is known before anything is read."""
    stamps = [stamp(source) for source in (*recipe.sources, *recipe.evaluation)]
    plain = [FORMAT, recipe.name, recipe.describe(), identity(recipe.tokenizer), stamps]
    return hashlib.sha256(canonical_json(plain).encode()).hexdigest()


class _Preparation:
    """One preparation, from whatever an earlier one left."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        work: Path,
        pool: PoolMaker,
        progress: Callable[[Progress], None],
        key: str,
    ) -> None:
        self.folder, self.work, self.pool, self.progress, self.key = folder, work, pool, progress, key
        self.asked = recipe
        forget()
        self.recipe = self._pinned(recipe)
        self.held_out = 0 if recipe.evaluation else max(1, round(recipe.held_out * BUCKETS))

    def _pinned(self, recipe: Recipe) -> Recipe:
        """The recipe with fixed revisions: those of the first attempt, where there was one."""
        path = self.work / "revisions.json"
        if not path.exists():
            fixed = [pinned(source).hub for source in (*recipe.sources, *recipe.evaluation)]
            write(path, json.dumps([hub.revision if hub else None for hub in fixed]))
        revisions = json.loads(path.read_text(encoding="utf-8"))
        count = len(recipe.sources)
        return replace(
            recipe,
            sources=_revised(recipe.sources, revisions[:count]),
            evaluation=_revised(recipe.evaluation, revisions[count:]),
        )

    def run(self) -> None:
        """Prepare everything; the manifest comes last."""
        recipe = self.recipe
        for source in (*recipe.evaluation, *recipe.sources):
            check(source, recipe)
        text, tokenizer, training_bytes = find_tokenizer(recipe, self.work, self.held_out)
        self.tokenizer, self.text = tokenizer, text
        self.end = read_end(tokenizer, recipe.tokenizer)
        self.vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        self.rounds = Rounds(self.folder, self.work, token_dtype(self.vocab_size))
        guard = None
        if recipe.evaluation:
            self._phase(EVALUATION, recipe.evaluation, None, len(recipe.sources))
            self._unchanged()
            self._evaluable()
            hashes = self.rounds.hashes
            guard = Guard.of(hashes("documents"), hashes("runs"), recipe.ngram)
        self._phase(TRAINING, recipe.sources, guard, 0)
        self._unchanged()
        self._manifest(guard, training_bytes)

    def _unchanged(self) -> None:
        """Raise `InputError` if what was read in this phase may not be what was there at the begin."""
        if _identity(self.asked) != self.key:
            raise InputError(
                f"files of recipe {self.recipe.name} changed while it was prepared; delete {self.folder} and run the "
                "command again"
            )

    def _evaluable(self) -> None:
        """Raise `InputError` if the evaluation sources left a split empty; a mended recipe may have the folder."""
        for split in (SPLITS[SELECT], SPLITS[REPORT]):
            if not self.rounds.shards(split):
                self.rounds.drop()
                raise self._empty(split)

    def _empty(self, split: str) -> InputError:
        use = "to train on" if split == SPLITS[TRAIN] else "to evaluate on"
        return InputError(f"recipe {self.recipe.name} leaves no document for the split {split}; give more text {use}")

    def _phase(self, phase: str, sources: Sequence[SourceRecipe], guard: Guard | None, first: int) -> None:
        """Write the shards of a phase, from where its last finished round stands."""
        evaluating = phase == EVALUATION
        done = [entry for entry in self.rounds.entries if entry.phase == phase]
        if done and done[-1].ended:
            return
        recipe = self.recipe
        job = Job(
            sources=tuple(sources),
            tokenizer=self.text,
            end=self.end,
            vocab_size=self.vocab_size,
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
                done[-1].standing if done else [Standing() for _ in sources],
            )
            self._draw(phase, mixture, staging, first)
        shutil.rmtree(rows, ignore_errors=True)

    def _draw(self, phase: str, mixture: Mixture, staging: Staging, first: int) -> None:
        began = told = time.monotonic()
        before = mixture.taken
        while (run := mixture.draw(self.recipe.shard_tokens - self.rounds.fullest)) is not None:
            self.rounds.append(run, first + run.source)
            if self.rounds.fullest >= self.recipe.shard_tokens:
                self.rounds.commit(phase, mixture.standing)
                for source, standing in enumerate(mixture.standing):
                    staging.forget(source, standing.unit)
            if (now := time.monotonic()) - told >= TELL_SECONDS:
                told, taken = now, mixture.taken
                limit = self.recipe.tokens if phase == TRAINING else self.recipe.evaluation_tokens
                self.progress(Progress(phase, taken, limit, taken - before, now - began))
        self.rounds.commit(phase, mixture.standing, mixture.ended)

    def _manifest(self, guard: Guard | None, training_bytes: int) -> None:
        recipe = self.recipe
        plain = account(recipe, self.rounds.entries, guard)
        splits = {}
        for split in SPLITS:
            shards = self.rounds.shards(split)
            documents = sum(shard.boundaries.documents for shard in shards if shard.boundaries)
            if not documents:
                raise self._empty(split)
            size = sum(entry["splits"][split]["bytes"] for entry in plain["mixture"])
            tokens = sum(shard.tokens for shard in shards)
            splits[split] = SplitEntry(documents, size, tokens, self.rounds.digests[split].hexdigest(), shards)
        write(self.folder / TOKENIZER_FILE, self.text)
        trained = recipe.tokenizer.train is not None
        content = content_sha256(self.tokenizer) if trained else _content(self.text)
        manifest = Manifest(
            corpus=recipe.name,
            vocab_size=self.vocab_size,
            split_rule=_rule(recipe, self.held_out),
            tokenizer=TokenizerEntry(file_sha256(self.folder / TOKENIZER_FILE), content, training_bytes),
            splits=splits,
            versions={name: version(name) for name in ("pyarrow", "tokenizers")},
            recipe={"format": FORMAT, "identity": self.key, "end_of_text": self.end, **plain},
        )
        manifest.write(self.folder)


def _revised(sources: Sequence[SourceRecipe], revisions: Sequence[str | None]) -> tuple[SourceRecipe, ...]:
    return tuple(
        replace(source, hub=replace(source.hub, revision=revision)) if source.hub and revision else source
        for source, revision in zip(sources, revisions, strict=True)
    )


def _content(text: str) -> str:
    """SHA-256 of a tokenizer file from outside, whatever its spaces and the order of its keys."""
    plain: dict[str, Any] = json.loads(text)
    plain.pop("version", None)
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _rule(recipe: Recipe, held_out: int) -> str:
    bucket = "a document's bucket is the first two bytes of the SHA-256 of its letters (big-endian)"
    if recipe.evaluation:
        return (
            f"{bucket}; evaluation sources: select below {BUCKETS // 2}, report all others; train: the other sources, "
            f"without documents equal to evaluation text or sharing {recipe.ngram} words in a row with it"
        )
    return f"{bucket}; select: below {held_out}, report: from there to below {2 * held_out}, train: all others"
