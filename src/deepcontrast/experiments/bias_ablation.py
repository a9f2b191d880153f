"""Does a network without biases do better out of distribution? The same training with and without them."""

from __future__ import annotations

from collections.abc import Sequence

from deepcontrast.config import Config
from deepcontrast.experiments import Finding, Run, Subject, pairs
from deepcontrast.experiments._figures import Pictures, figure
from deepcontrast.experiments._networks import SHOWN, Volume, clean, learned, seeded, shown_planes, source_of
from deepcontrast.experiments._scores import comparisons, definitions, listed, measure, summarise, told, verdict
from deepcontrast.progress import Progress, silent

PHANTOMS = ("tissue",)
FREE, BIASED = "without bias", "with bias"


def bias_ablation(
    subjects: Sequence[Subject],
    config: Config,
    *,
    seeds: Sequence[int],
    device: str = "cpu",
    progress: Progress = silent,
) -> Finding:
    """Return the scores of networks with and without biases for k = 0 .. ``predict.iterations``.

    Args:
        subjects: the stacks.
        config: the settings; ``net.bias`` is overruled.
        seeds: of training; a simulated stack is used with its own only.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        progress: gets events.

    Source: DeepContrast, sections 4.6 and 5.2, figure 7.
    """
    runs: list[Run] = []
    pictures: Pictures = ()
    times = config.predict.iterations
    k_shown = min(SHOWN, times)
    for subject, seed in pairs(subjects, seeds):
        source = source_of(subject)
        shown: dict[str, Volume] = {}
        for name, bias in ((FREE, False), (BIASED, True)):
            network = learned(source, seeded(config, seed, bias=bias), device=device, progress=progress)
            raw = clean(network, source)
            passes = [raw, *network.passes(raw, times, progress=progress)]
            shown |= {"raw": raw, f"k = {k_shown}, {name}": passes[k_shown]}
            for k, result in enumerate(passes):
                scores = measure(subject, source, raw, result, network.fit)
                runs.append({"stack": subject.name, "seed": seed, "network": name, "k": k, **scores})
        if subject.truth is not None:
            shown["truth"] = subject.truth
        if not pictures:
            planes = shown_planes(source.depth)
            pictures = [(f"plane {z}", {title: volume[z] for title, volume in shown.items()}) for z in planes]
    columns, rows = summarise(runs, ("network", "k"))
    return Finding(
        "Bias ablation: networks with and without biases",
        "DeepContrast, sections 4.6 and 5.2, figure 7",
        columns,
        rows,
        tuple(runs),
        figure(pictures, columns, rows, x="k", scores=told(runs), series="network"),
        sentences(runs),
        definitions(runs),
    )


def sentences(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return how both networks compare at 3 iterations and at the last one."""
    last = max(k for run in runs if isinstance(k := run["k"], int))
    said = []
    for k in dict.fromkeys((min(SHOWN, last), last)):
        found = comparisons(runs, {"network": FREE, "k": k}, {"network": BIASED, "k": k})
        said.append(f"At k = {k} the network without bias is {verdict(found)} the one with bias: {listed(found)}.")
    return (*said, "The paper saw only cases in which the network without bias kept more detail (at k = 3).")
