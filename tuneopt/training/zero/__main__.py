"""Train one trial on several ranks: ``python -m tuneopt.training.zero SPEC.json --corpus DIR --ranks 2 --zero 2``.

Alone it starts its ranks on this machine; started by torchrun it is one of them. Prints the record as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from pathlib import Path

from tuneopt.data import open_corpus
from tuneopt.errors import InputError
from tuneopt.spec import TrialSpec
from tuneopt.training.config import STAGES, ParallelConfig
from tuneopt.training.fitting import chosen_stage
from tuneopt.training.launch import RankFailedError, is_rank, leave
from tuneopt.training.ranks import rank_of_environment
from tuneopt.training.run import rank_job, run_rank, run_ranks


def main(arguments: list[str]) -> int:
    """Exit code 0, 1 where a rank failed, 2 for bad input; the last line on stderr says what it was.

    One module, three parts. A user's call is the parent: it picks the ZeRO stage, starts this module once per rank
    (`run_ranks`, which sends everything in ``--job``) and prints the record. Started so it is a rank, and prints what
    `run_ranks` reads. Started by torchrun it is a rank too, with the user's own options on every machine.
    """
    parser = argparse.ArgumentParser(prog="python -m tuneopt.training.zero", description=__doc__)
    parser.add_argument("spec", type=Path, nargs="?", help="the trial: a JSON file as TrialSpec.to_dict gives it")
    parser.add_argument("--corpus", type=Path, help="folder of a prepared corpus")
    parser.add_argument("--ledger", default="ledger", help="where the record goes (default: %(default)s)")
    parser.add_argument("--ranks", type=int, default=1, help="processes, one per GPU (default: %(default)s)")
    parser.add_argument("--zero", type=int, choices=STAGES, help="ZeRO stage (default: the lowest that fits)")
    parser.add_argument("--offload", action="store_true", help="keep weights and state in host memory")
    parser.add_argument("--job", help=argparse.SUPPRESS)  # all of it in one word, from `run_ranks`
    options = parser.parse_args(arguments)
    if options.job is None and (options.spec is None or options.corpus is None):
        parser.error("give the trial's JSON file and --corpus")
    try:
        if is_rank():
            with rank_of_environment() as ranks:
                job = options.job
                if job is None:  # started by torchrun
                    plain, zero = json.loads(options.spec.read_text()), options.zero
                    if zero is None:
                        # Machines may differ, ranks must not: the one with least memory decides.
                        stage = chosen_stage(TrialSpec.from_dict(plain), ranks.world, offload=options.offload)
                        zero = max(ranks.gather(stage))
                    parallel = ParallelConfig(ranks.world, zero, options.offload)
                    job = rank_job(plain, options.corpus, options.ledger, parallel)
                run_rank(job, ranks)
            return 0
        spec = TrialSpec.from_dict(json.loads(options.spec.read_text()))
        zero = chosen_stage(spec, options.ranks, offload=options.offload) if options.zero is None else options.zero
        parallel = ParallelConfig(options.ranks, zero, options.offload)
        corpus = open_corpus(options.corpus)
        record = run_ranks(spec, corpus, options.ledger, parallel, lambda point: print(point, file=sys.stderr))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except RankFailedError as error:
        print(f"{error.log}\n{error}", file=sys.stderr)
        return 1
    print(record.to_json())
    return 0


if __name__ == "__main__":
    if is_rank():
        # `leave` skips the clean-up at exit, which aborts one rank in ten; so the traceback is printed here.
        try:
            code = main(sys.argv[1:])
        except BaseException:
            traceback.print_exc()
            code = 1
        leave(code)
    sys.exit(main(sys.argv[1:]))
