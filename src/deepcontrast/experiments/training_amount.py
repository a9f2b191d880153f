"""How many training patches does it take? The same number of steps on more and more different crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from deepcontrast.config import Config
from deepcontrast.experiments import Finding, Run, Subject, pairs
from deepcontrast.experiments._figures import Pictures, figure
from deepcontrast.experiments._networks import SHOWN, Volume, clean, learned, seeded, shown_planes, source_of, task_of
from deepcontrast.experiments._scores import TOLERANCE, WORDS, compared, definitions, measure, summarise, told
from deepcontrast.progress import Progress, silent
from deepcontrast.task import Bank, Source

PHANTOMS = ("tissue",)
AMOUNTS = (16, 64, 256, 1024)
ALL = "all"


@dataclass(frozen=True)
class Limited:
    """A task whose training patches are cut at ``amount`` places only; the rest is the task's own.

    The places are the first of a random order that the seed fixes: those of a smaller amount are among those of a
    larger one. They do not change between rounds.
    """

    task: Any
    amount: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def prepare(self, sources: Sequence[Source], fit: Any, config: Config, *, seed: int, round: int) -> Bank:  # noqa: ARG002
        """Return the task's first bank with that many corners, exactly at their place on the grid."""
        bank: Bank = self.task.prepare(sources, fit, config, seed=seed, round=0)
        order = torch.randperm(len(bank.corners), generator=torch.Generator().manual_seed(seed))
        return replace(bank, corners=bank.corners[order[: self.amount]], jitter=1)


def training_amount(
    subjects: Sequence[Subject],
    config: Config,
    *,
    seeds: Sequence[int],
    device: str = "cpu",
    progress: Progress = silent,
) -> Finding:
    """Return the scores of networks trained on 16, 64, 256, 1024 and all crops of a stack, and those of raw.

    Every network takes the same number of steps. Crops may overlap; orientations (``train.augment``) are not
    counted. Amounts that a stack does not offer are left out.

    Args:
        subjects: the stacks.
        config: the settings.
        seeds: of training; a simulated stack is used with its own only.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        progress: gets events.

    Source: CARE, supplementary figure 5 (there 17 to 17005 crops of 64 x 64 x 16 voxels).
    """
    runs: list[Run] = []
    pictures: Pictures = ()
    times = min(SHOWN, config.predict.iterations)
    offered: dict[str, str] = {}
    for subject, seed in pairs(subjects, seeds):
        source, settings, task = source_of(subject), seeded(config, seed), task_of(config)
        fit = task.fit([source], settings, progress=progress)
        bank = task.prepare([source], fit, settings, seed=seed, round=0)
        offered[subject.name] = f"{len(bank.corners)} grid places, each shifted by up to {bank.jitter - 1} px"
        amounts = [n for n in AMOUNTS if n < len(bank.corners)]
        del bank
        shown: dict[str, Volume] = {}
        every: tuple[int | str, ...] = (*amounts, ALL)
        for amount in every:
            limited = Limited(task, amount) if isinstance(amount, int) else task
            network = learned(source, settings, task=limited, fit=fit, device=device, progress=progress)
            raw = clean(network, source)
            if "raw" not in shown:
                scores = measure(subject, source, raw, raw, fit)
                runs.append({"stack": subject.name, "seed": seed, "crops": "raw", **scores})
                shown["raw"] = raw
            result = network.passes(raw, times, progress=progress)[-1]
            shown[f"{amount} crops"] = result
            scores = measure(subject, source, raw, result, fit)
            runs.append({"stack": subject.name, "seed": seed, "crops": amount, **scores})
        if not pictures:
            planes = shown_planes(source.depth)
            pictures = [(f"plane {z}", {title: volume[z] for title, volume in shown.items()}) for z in planes[:2]]
    columns, rows = summarise(runs, ("crops",))
    return Finding(
        "Amount of training data: quality against the number of crops",
        "CARE, supplementary figure 5",
        columns,
        rows,
        tuple(runs),
        figure(pictures, columns, rows, x="crops", scores=told(runs)),
        sentences(runs),
        {
            "iterations": str(times),
            "steps": f"{config.train.steps} of {config.train.batch} patches for every network",
            "all crops": "; ".join(f"{name}: {what}" for name, what in offered.items()),
            **definitions(runs),
        },
    )


def sentences(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return from which amount on a score stays within 0.01 of what all crops give."""
    amounts = sorted({n for run in runs if isinstance(n := run["crops"], int)})
    said = []
    for score in told(runs):
        found = {n: compared(runs, score, {"crops": n}, {"crops": ALL}) for n in amounts}
        known = {n: c for n, c in found.items() if c is not None}
        if not known:
            said.append(f"{WORDS[score]}: not defined for fewer than all crops.")
            continue
        near = {n: abs(c.one - c.other) <= TOLERANCE for n, c in known.items()}
        enough = [n for n in known if all(near[m] for m in known if m >= n)]
        least = known[min(known)]
        until = f"from {enough[0]} on within {TOLERANCE} of all" if enough else f"none within {TOLERANCE} of all"
        said.append(
            f"{WORDS[score]} is {least.one:.3f} with {min(known)} crops and {least.other:.3f} with all (higher in "
            f"{least.lower} of {least.count} runs); of the amounts, {until}."
        )
    return tuple(said)
