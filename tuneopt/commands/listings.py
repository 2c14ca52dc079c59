"""``tuneopt optimizers``, ``tuneopt space``, ``tuneopt predict`` and ``tuneopt doctor``.

They answer before anything is trained and so must be quick: optimizers and spaces are listed without torch. The doctor
is the exception, because what torch and Ray say of this machine is what it is asked for.

A predicted value without its interval reads like a tuned one, so both are always printed, and so is the distance from
what was tuned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuneopt.checked import count
from tuneopt.commands.options import BAD_INPUT, DONE, CorpusName, Json, Optimizer, Space, group, show

if TYPE_CHECKING:
    from tuneopt.api.prediction import PredictedConfig

scales = group("Look at model scales, built in or of your own.")


def optimizers(json_: Json = False) -> int:
    """List the optimizers, also of installed packages: family, switches, fallback rule, source, state bytes."""
    from tuneopt import api

    return show(api.optimizers(), json_, _print_optimizers)


def space(
    name: Annotated[str, typer.Argument(help="Optimizer, LIBRARY:NAME, or the path of a search-space file.")],
    json_: Json = False,
) -> int:
    """Print a search space: grids and starts of both ladders, and the published tuned points."""
    from tuneopt.api.optimizers import space_of
    from tuneopt.optim.external import of_library
    from tuneopt.search import load_space

    return show((space_of(name) if of_library(name) else load_space(name)).describe(), json_, _print_space)


@scales.command("show")
def scale_show(
    name: Annotated[str, typer.Argument(help="A scale's name, FILE.yaml, or a shorthand such as 6x384,seq=256.")],
    corpus: CorpusName = "embedded",
    measure: Annotated[bool, typer.Option("--measure", help="Train a few steps here, and say what one takes.")] = False,
    json_: Json = False,
) -> int:
    """Show a scale: parameters, FLOPs, tokens of one budget, memory, and with --measure the time of a step here."""
    from tuneopt import api

    return show(api.scale_facts(name, corpus, measure=measure).to_dict(), json_, _print_scale)


def doctor(
    address: Annotated[str | None, typer.Option("--address", help="Also look at the Ray cluster there.")] = None,
    json_: Json = False,
) -> int:
    """Say what this machine or cluster can run, and what is missing."""
    from tuneopt.cluster.doctor import examine
    from tuneopt.console import table

    findings = list(examine(address))
    marks = {"ok": "ok", "note": "note", "missing": "MISSING"}
    rows = [(marks[one.status], one.subject, one.detail, one.mend) for one in findings]
    show([one.to_dict() for one in findings], json_, lambda plain: table(("", "", "", ""), rows))
    return BAD_INPUT if any(finding.status == "missing" for finding in findings) else DONE


def _print_optimizers(entries: Sequence[Mapping[str, Any]]) -> None:
    from tuneopt.console import out, pairs, table

    rows = []
    for entry in entries:
        # Optimizers of other packages need not declare what they hold; an invented 0 would promise room.
        size = entry["state_bytes_per_parameter"]
        state = "not declared" if size is None else f"{size:.4g}"
        family = entry["family"] or "not declared"
        on = ", ".join(f"{word}={value}" for word, value in entry["preset"].items())
        rows.append((entry["name"], entry["origin"], family, on, entry["fallback"], state, entry["source"]))
    table(("optimizer", "origin", "family", "switches on", "fallback", "state bytes/parameter", "source"), rows)
    takers: dict[tuple[str, ...], list[str]] = {}
    for entry in entries:
        if entry["switches"]:
            takers.setdefault(tuple(entry["switches"]), []).append(entry["name"])
    out.print()
    pairs({", ".join(names): f"--set {', '.join(words)}" for words, names in takers.items()})


def _print_scale(plain: Mapping[str, Any]) -> None:
    from tuneopt.console import number, pairs
    from tuneopt.search.study.cost import size

    step = "not measured (--measure)"
    if plain["step_seconds"] is not None:
        step = f"{plain['step_seconds']:.3g} s for {plain['step_sequences']} sequences (AdamW, uncompiled)"
    pairs({
        **plain["scale"],
        "parameters (N)": f"{number(plain['parameters'])}, {number(plain['total_parameters'])} with embedding and head",
        "vocabulary": plain["vocabulary"],
        "FLOPs per token": number(plain["flops_per_token"]),
        "tokens at ratio 1": f"{number(plain['tokens'])} ({number(plain['trial_flops'])} FLOPs)",
        "memory of AdamW": f"{size(plain['memory_bytes'])} predicted, {plain['micro_batch']} sequences in a pass",
        "a step": step,
        "export as": plain["family"] or "nothing that transformers loads",
    })  # fmt: skip


def _print_space(plain: Mapping[str, Any]) -> None:
    """A search space with the grids of both ladders and the published tuned values.

    The ladders are tables of their own, because a coordinate may be searched on one and fixed on the other. A published
    point that does not have a coordinate shows a dash: the study did not tune it.
    """
    from tuneopt.console import loss, out, pairs, table

    coordinates = plain["coordinates"]
    for ladder, fixed in plain["fixed"].items():
        table(
            ("coordinate", "start", "grid", "unit", "kind"),
            [
                (one["name"], one["start"][ladder], " ".join(map(str, one["grid"][ladder])), one["unit"], one["kind"])
                for one in coordinates
                if ladder in one["grid"]
            ],
            f"{plain['optimizer']}, {ladder} ladder",
        )
        constants = ", ".join(f"{name}={value}" for name, value in fixed.items())
        out.print(f"fixed: {constants or 'nothing'}", markup=False)
        out.print()
    points = plain["published"]
    if points:
        table(
            ("published tuned points", *(f"{point['scale']}/{point['ratio']:g}x" for point in points)),
            [
                ("loss, nats/token", *(loss(point["loss"]) for point in points)),
                *((one["name"], *(point["config"].get(one["name"], "-") for point in points)) for one in coordinates),
            ],
        )
        out.print()
    pairs({one["name"]: one["meaning"] for one in coordinates})
    out.print()
    pairs({"source": plain["source"], "nano ladder": plain["found"]})


def predict(
    optimizer: Optimizer,
    params: Annotated[str, typer.Option("--params", metavar="COUNT", help="Non-embedding parameters, such as 1.2B.")],
    ratio: Annotated[float, typer.Option("--ratio", help="Tokens over the Chinchilla optimum (20 per parameter).")],
    ledger: Annotated[
        str | None, typer.Option("--ledger", help="Certified sweeps to learn from; default: the published points.")
    ] = None,
    space: Space = None,
    json_: Json = False,
) -> int:
    """Predict hyperparameters, with intervals, for a scale and ratio that nobody tuned."""
    from tuneopt import api

    predicted = api.predict(optimizer, float(count("--params", params)), ratio, ledger, space=space)
    return show(predicted.to_dict(), json_, lambda plain: _print_prediction(predicted, plain))


def _print_prediction(predicted: PredictedConfig, plain: Mapping[str, Any]) -> None:
    """Values with 90% intervals, the laws behind them, and how far they reach beyond what was tuned."""
    from tuneopt.console import out, say, table

    forecast = predicted.forecast

    def text(value: Any) -> str:
        return f"{value:g}" if isinstance(value, float) else str(value)

    def law(name: str) -> str:
        # For averages such as beta2 the law is one of 1 - h: their distance from 1 is what scales.
        fitted = forecast.coordinates[name].law
        if fitted is None:
            return ""
        left = "1 - h = " if fitted.complement else "h = "
        offset = f" + {fitted.e:.3g}" if fitted.e else ""
        return f"{left}{fitted.a:.3g} N^{fitted.b:.2f} ratio^{fitted.c:.2f}{offset}"

    table(
        ("coordinate", "value", "90% interval", "how", "support", "law"),
        [
            (
                name,
                text(one.value),
                "" if one.low == one.high else f"{text(one.low)} to {text(one.high)}",
                one.method,
                f"{one.support:.0%}",
                law(name),
            )
            for name, one in forecast.coordinates.items()
        ],
        f"{predicted.optimizer} at {forecast.params:.4g} parameters, ratio {forecast.ratio:g}",
    )
    fixed = ", ".join(f"{name}={value}" for name, value in plain["fixed"].items())
    out.print(f"fixed: {fixed or 'nothing'}", markup=False)
    out.print(f"{predicted.ground}; N in units of 1e8 parameters", markup=False)
    # Inside the tuned range the factor is 1, however far the nearest tuned regime is.
    beyond = {name: factor for name, factor in forecast.extrapolation.items() if factor > 1}
    if beyond:
        far = " and ".join(f"{factor:.3g} times in {name}" for name, factor in beyond.items())
        say(f"note: this extrapolates {far} beyond what was tuned")
