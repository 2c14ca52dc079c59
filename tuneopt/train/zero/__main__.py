"""Train one trial on several ranks: ``python -m tuneopt.train.zero SPEC.json --corpus DIR --ranks 2 --zero 2``.

Alone it starts its ranks on this machine; started by torchrun it is one of them. Prints the record as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from dataclasses import asdict
from pathlib import Path

from tuneopt.spec import InputError, TrialSpec
from tuneopt.train.config import STAGES, ParallelConfig
from tuneopt.train.distributed_run import run_ranks, work
from tuneopt.train.fitting import chosen_stage
from tuneopt.train.launch import RankFailedError, is_rank, leave
from tuneopt.train.ranks import rank_of_environment


def main(arguments: list[str]) -> int:
    """Exit code 0, 1 where a rank failed, 2 for bad input; the last line on stderr says what it was."""
    parser = argparse.ArgumentParser(prog="python -m tuneopt.train.zero", description=__doc__)
    parser.add_argument("spec", type=Path, nargs="?", help="the trial: a JSON file as TrialSpec.to_dict gives it")
    parser.add_argument("--corpus", type=Path, help="folder of a prepared corpus")
    parser.add_argument("--ledger", default="ledger", help="where the record goes (default: %(default)s)")
    parser.add_argument("--ranks", type=int, default=1, help="processes, one per GPU (default: %(default)s)")
    parser.add_argument("--zero", type=int, choices=STAGES, help="ZeRO stage (default: the lowest that fits)")
    parser.add_argument("--offload", action="store_true", help="keep weights and state in host memory")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.job is None and (options.spec is None or options.corpus is None):
        parser.error("give the trial's JSON file and --corpus")
    try:
        if is_rank():
            return _rank(options)
        from tuneopt.data import open_corpus

        spec = TrialSpec.from_dict(json.loads(options.spec.read_text()))
        zero = chosen_stage(spec, options.ranks, offload=options.offload) if options.zero is None else options.zero
        placement = ParallelConfig(options.ranks, zero, options.offload)
        record = run_ranks(
            spec, open_corpus(options.corpus), options.ledger, placement, lambda point: print(point, file=sys.stderr)
        )
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except RankFailedError as error:
        print(f"{error.log}\n{error}", file=sys.stderr)
        return 1
    print(record.to_json())
    return 0


def _rank(options: argparse.Namespace) -> int:
    with rank_of_environment() as ranks:
        job = options.job
        if job is None:
            plain, zero = json.loads(options.spec.read_text()), options.zero
            if zero is None:
                # Machines may differ, ranks must not: the one with least memory decides.
                zero = max(ranks.gather(chosen_stage(TrialSpec.from_dict(plain), ranks.world, offload=options.offload)))
            job = json.dumps(
                {
                    "spec": plain,
                    "corpus": str(options.corpus),
                    "ledger": options.ledger,
                    "placement": asdict(ParallelConfig(ranks.world, zero, options.offload)),
                }
            )
        work(job, ranks)
    return 0


if __name__ == "__main__":
    if is_rank():
        try:
            code = main(sys.argv[1:])
        except BaseException:
            traceback.print_exc()
            code = 1
        leave(code)
    sys.exit(main(sys.argv[1:]))
