"""DeepContrast beside csbdeep and careamics: training, prediction, memory, start, cost against size, and the floor.

    python benchmarks/speed/run.py --out DIR [--only SECTION ...] [--quick] [--write docs/benchmarks.md]

Makes an environment for each peer on the first run, prints tables, and writes every number to DIR/speed.json. What is
measured is described in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import floor
import size
import startup
import tables
from environments import python_of
from networks import CASES
from sides import HERE, Measured, Side, interleaved

OURS = Path(sys.executable)
QUICK = {"cases": ["2D depth 2"], "repeats": 2, "starts": 2, "sizes": [64, 256]}


@dataclass
class Run:
    """The options of this run, and what it has measured so far."""

    options: argparse.Namespace
    found: dict[str, Any] = field(default_factory=dict)
    measured: list[Measured] = field(default_factory=list)

    def peer(self, name: str) -> Path:
        return python_of(name, self.options.cache)

    def save(self) -> None:
        """Write every number so far: a run takes long and may be stopped."""
        (self.options.out / "speed.json").write_text(json.dumps(self.found, indent=1))


def training(run: Run) -> str:
    return _compare(run, "training")


def prediction(run: Run) -> str:
    return _compare(run, "prediction")


def start(run: Run) -> str:
    todo = startup.commands(OURS, run.peer("csb"), run.peer("cam"))
    found = startup.starts(todo, run.options.starts)
    run.found["startup"] = [asdict(one) for one in found]
    return tables.started(found)


def sizes(run: Run) -> str:
    asked = [mib * 2**20 for mib in run.options.sizes]
    deepcontrast = OURS.with_name("deepcontrast")
    found = list(size.costs(deepcontrast, asked, run.options.memory, run.options.out / "sizes"))
    run.found["size"] = [asdict(cost) for cost in found]
    rows = [
        [
            f"{cost.bytes / 2**20:,.0f} MiB",
            f"{cost.cpu_seconds:.1f}",
            f"{cost.per_voxel() * 1e9:.1f}",
            f"{cost.peak / 1e6:,.0f}",
        ]
        for cost in found
    ]
    table = tables.markdown(["stack", "CPU s", "ns per voxel, without the start", "peak, MB"], rows)
    return f"With --memory {run.options.memory}; the start takes {found[0].start:.1f} CPU s.\n\n{table}"


def least(run: Run) -> str:
    command = [OURS, HERE / "floor.py", str(run.options.threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(run.options.threads)}
    text = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    rates = floor.Rates(**json.loads(text))
    taken = {(m.measure, m.case, m.side): median(m.cpu_seconds) for m in run.measured}
    rows, found = [], []
    for measure in ("training", "prediction"):
        for name, case in CASES.items():
            for precision in ("float32", "bfloat16"):
                work = floor.work_of(case, measure, precision)
                seconds = floor.floor_seconds(work, getattr(rates, precision), rates.bytes)
                flops, took = sum(part.flops for part in work), taken.get((measure, name, f"ours, {precision}"))
                found.append(
                    {"measure": measure, "case": name, "precision": precision, "floor": seconds, "flops": flops}
                )
                reached = f"{seconds / took:.2f}" if took else "-"
                rows.append([f"{measure}, {name}, {precision}", f"{flops / 1e9:,.0f}", f"{seconds:.3f}", reached])
    run.found["floor"] = {"rates": asdict(rates), "work": found}
    table = tables.markdown(["what", "GFLOP", "floor, CPU s", "floor over measured"], rows)
    return (
        f"A CPU second does {rates.float32 / 1e9:.0f} GFLOP in float32, {rates.bfloat16 / 1e9:.0f} in "
        f"bfloat16, and copies {rates.bytes / 1e9:.1f} GB (read and written).\n\n{table}"
    )


# The floor last: it is held against what the same run has measured.
SECTIONS = {"training": training, "prediction": prediction, "startup": start, "size": sizes, "floor": least}


def _compare(run: Run, measure: str) -> str:
    sides = (
        Side("csbdeep", run.peer("csb"), "csbdeep_side.py", "float32"),
        Side("careamics", run.peer("cam"), "careamics_side.py", "float32"),
        Side("ours, float32", OURS, "ours.py", "float32"),
        Side("ours, bfloat16", OURS, "ours.py", "bfloat16"),
    )
    found = []
    for case in run.options.cases:
        found += interleaved(measure, case, sides, repeats=run.options.repeats, threads=run.options.threads)
        run.found[measure] = [asdict(result) for result in found]
        run.save()
    run.measured += found
    versions = dict.fromkeys(result.versions for result in found)
    return f"{'; '.join(versions)}.\n\n{tables.compared(found)}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for speed.json")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="sections to measure")
    parser.add_argument("--quick", action="store_true", help=f"whether everything works: {QUICK} unless given")
    parser.add_argument("--cache", type=Path, default=Path(".venv-peers"), help="folder of the peers' environments")
    parser.add_argument("--write", type=Path, help="page to put the tables into, between its markers")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="networks to measure")
    parser.add_argument(
        "--repeats", type=int, default=7, help="turns of every side: a prediction, or four training steps"
    )
    parser.add_argument("--starts", type=int, default=10, help="how often every command is started")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 512, 2048, 8192], help="of stacks, in MiB")
    parser.add_argument("--memory", default="1GB", help="what predict is given for them")
    if parser.parse_args(arguments).quick:
        parser.set_defaults(**QUICK)
    run = Run(parser.parse_args(arguments))
    run.options.out.mkdir(parents=True, exist_ok=True)
    about = (
        f"{platform.machine()}, {os.cpu_count()} cores, {run.options.threads} threads, "
        f"OMP_WAIT_POLICY {os.environ.get('OMP_WAIT_POLICY', 'not set')}, load {os.getloadavg()[1]:.1f} before the run."
    )
    run.found["about"] = about
    counts = f"--repeats {run.options.repeats} --starts {run.options.starts} --threads {run.options.threads}"
    for section in (name for name in SECTIONS if name in run.options.only):
        text = f"`--only {' '.join(run.options.only)} {counts}`. {about}\n\n{SECTIONS[section](run)}"
        print(f"\n{section}\n\n{text}", flush=True)
        run.save()
        if run.options.write:
            page = run.options.write.read_text(encoding="utf-8")
            run.options.write.write_text(tables.put(page, section, text), encoding="utf-8")


if __name__ == "__main__":
    main()
