"""What does a network do to a tissue it has never seen? Two stacks, each restored by both networks."""

from __future__ import annotations

from collections.abc import Sequence

from deepcontrast.config import Config
from deepcontrast.errors import InputError
from deepcontrast.experiments import Finding, Run, Subject, pairs
from deepcontrast.experiments._figures import figure
from deepcontrast.experiments._networks import (
    SHOWN,
    Network,
    Volume,
    clean,
    learned,
    seeded,
    shown_planes,
    source_of,
)
from deepcontrast.experiments._scores import (
    compared,
    comparisons,
    definitions,
    listed,
    measure,
    summarise,
    told,
    verdict,
)
from deepcontrast.progress import Progress, silent
from deepcontrast.task import Source

PHANTOMS = ("tissue", "nuclei")
RAW, OWN, OTHER = "raw", "own network", "other network"


def cross_application(
    subjects: Sequence[Subject],
    config: Config,
    *,
    seeds: Sequence[int],
    device: str = "cpu",
    progress: Progress = silent,
) -> Finding:
    """Return the scores of two tissues, each restored by its own network and by the other's.

    A network is applied with the camera and normalisation of the stack it is applied to: only what it learned is of
    the wrong tissue.

    Args:
        subjects: of two names.
        config: the settings of both networks.
        seeds: of training; a simulated stack is used with its own only.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        progress: gets events.

    Raises:
        InputError: not two kinds of tissue.

    Source: CARE, supplementary figure 25.
    """
    names = tuple(dict.fromkeys(subject.name for subject in subjects))
    if len(names) != 2:
        raise InputError(f"cross-application needs two stacks; given {len(names)}: {', '.join(names)}")
    runs: list[Run] = []
    pictures: list[tuple[str, dict[str, Volume]]] = []
    times = min(SHOWN, config.predict.iterations)
    for seed in seeds:
        trained: dict[str, tuple[Subject, Source, Network]] = {}
        for subject, _ in pairs(subjects, (seed,)):
            source = source_of(subject)
            network = learned(source, seeded(config, seed), device=device, progress=progress)
            trained[subject.name] = subject, source, network
        for name, (subject, source, own) in trained.items():
            raw = clean(own, source)
            shown = {RAW: raw}
            for which, (_, _, applied) in trained.items():
                label = OWN if which == name else OTHER
                shown[label] = applied.passes(raw, times, fit=own.fit, progress=progress)[-1]
            for label in (RAW, OWN, OTHER):
                scores = measure(subject, source, raw, shown[label], own.fit)
                runs.append({"stack": name, "seed": seed, "restored by": label, **scores})
            if seed == seeds[0]:
                z = shown_planes(source.depth)[1]
                pictures.append((f"{name}, plane {z}", {label: shown[label][z] for label in (RAW, OWN, OTHER)}))
    columns, rows = summarise(runs, ("stack", "restored by"))
    drawn = (*told(runs), "unsupported")
    return Finding(
        "Cross-application: a network on a tissue it was not trained on",
        "CARE, supplementary figure 25",
        columns,
        rows,
        tuple(runs),
        figure(pictures, columns, rows, x="restored by", scores=drawn, series="stack", joined=False),
        sentences(runs),
        {
            "iterations": str(times),
            "other network": "with the stack's own camera and normalisation",
            **definitions(runs),
        },
    )


def sentences(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return, for each tissue, how the other network compares with its own and with raw, and what it invents."""
    said = []
    for name in dict.fromkeys(run["stack"] for run in runs):
        of = [run for run in runs if run["stack"] == name]
        for label, word in ((OWN, "its own"), (RAW, "raw")):
            found = comparisons(of, {"restored by": OTHER}, {"restored by": label})
            said.append(f"{name}: the other network is {verdict(found)} {word}: {listed(found)}.")
        invented = compared(of, "unsupported", {"restored by": OTHER}, {"restored by": OWN})
        if invented is not None:
            said.append(
                f"{name}: of the components that the other network shows, {invented.one:.1%} have nothing in the raw "
                f"at their place; of its own network's, {invented.other:.1%}."
            )
    return tuple(said)
