"""Two processes beside one: what a step of training takes each, on the same cores.

::

    python -m benchmarks.processes IMAGES… [--batches 4,8,16] [--rounds 14] [--seconds 4]

Machines change their speed by more, from minute to minute, than what is looked for. So both runs are held ready, and
take turns of a few seconds: while one learns, the other is stopped. What is told is the ratio of the means of all
turns, and the standard error of that of single pairs.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch

from unperturb.data.decoded import Preparation, open_patches
from unperturb.model.machine import keep_freed_memory
from unperturb.model.network import PRESETS, UNetSettings
from unperturb.train.fit import fit
from unperturb.train.material import crops
from unperturb.train.processes import processes
from unperturb.train.settings import FitSettings
from unperturb.train.state import FitState

SETTLED = 12
"""Steps before the first turn: memory is taken, threads are started."""

WAKING = 0.5
"""Seconds at the beginning of a turn that are not counted."""

SIZES = {name: preset for name, preset in PRESETS.items() if isinstance(preset, UNetSettings)}


def learn(images: Sequence[Path], cache: Path, network: UNetSettings, batch: int, journal: Path) -> None:
    """Train a network in colour without an end, and write when each step was done."""
    keep_freed_memory()
    cpu = torch.device("cpu")
    with processes(cpu) as team:
        with team.one_first():
            material = open_patches(images, cache, Preparation())
        settings = FitSettings("gaussian:sigma=0..0.25", replace(network, channels=3), steps=10**6, batch=batch)
        state = FitState.start(settings)
        draw = crops(settings, material.of(held_out=False), cpu, team)
        with journal.open("a", buffering=1) as file:
            for _ in fit(state, draw, processes=team):
                if team.leads:
                    file.write(f"{time.monotonic()}\n")


class Run:
    """A run in some processes, stopped but for its turns."""

    def __init__(self, count: int, arguments: Sequence[str], journal: Path) -> None:
        self.journal = journal
        journal.touch()
        command = [sys.executable, "-m", "benchmarks.processes", *arguments, "--journal", str(journal)]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self.members = [
            subprocess.Popen(command, env=os.environ | _ranks(rank, count, port), stdout=subprocess.DEVNULL)
            for rank in range(count)
        ]
        while len(self.steps()) < SETTLED:
            if any(member.poll() is not None for member in self.members):
                self.end()
                raise click.ClickException("a process has ended before its first steps")
            time.sleep(0.2)
        self.send(signal.SIGSTOP)

    def turn(self, seconds: float) -> float:
        """Learn for some seconds; return what a step took."""
        self.send(signal.SIGCONT)
        time.sleep(WAKING)
        begin = time.monotonic()
        time.sleep(seconds)
        self.send(signal.SIGSTOP)
        done = [step for step in self.steps() if step > begin]
        if len(done) < 2:
            raise click.UsageError(f"there are not two steps in {seconds:g} seconds; give more --seconds")
        return (done[-1] - done[0]) / (len(done) - 1)

    def steps(self) -> list[float]:
        """Return when the steps so far were done."""
        return [float(line) for line in self.journal.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def send(self, what: signal.Signals) -> None:
        """Send a signal to every process."""
        for member in self.members:
            member.send_signal(what)

    def end(self) -> None:
        """End it, and wait for that."""
        self.send(signal.SIGKILL)
        for member in self.members:
            member.wait()


def _ranks(rank: int, count: int, port: str) -> dict[str, str]:
    """Return what a launcher would tell a process."""
    ranks = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": count}
    return {name: str(value) for name, value in ranks.items()} | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


def compared(arguments: Sequence[str], cache: Path, batch: int, rounds: int, seconds: float) -> tuple[float, ...]:
    """Return what a step takes one process and two, and the standard error of the ratio of a pair of turns."""
    arguments = [*arguments, "--cache", str(cache), "--batches", str(batch)]
    runs: list[Run] = []
    try:
        for count in (1, 2):
            runs.append(Run(count, arguments, cache / f"{batch}-{count}.txt"))
        pairs = np.empty((rounds, 2))
        for number in range(rounds):
            for which in (0, 1) if number % 2 else (1, 0):
                pairs[number, which] = runs[which].turn(seconds)
    finally:
        for run in runs:
            run.end()
    one, two = pairs.mean(0)
    ratios = pairs[:, 0] / pairs[:, 1]
    return float(one), float(two), float(ratios.std(ddof=1) / rounds**0.5)


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--batches", default="4,8,16", show_default=True, help="Crops of a step.")
@click.option("--rounds", default=14, show_default=True, type=click.IntRange(2), help="Turns of each.")
@click.option("--seconds", default=4.0, show_default=True, help="Of a turn.")
@click.option("--network", default="medium", show_default=True, type=click.Choice(SIZES), help="What is trained.")
@click.option("--cache", type=click.Path(path_type=Path), default=None, hidden=True)
@click.option("--journal", type=click.Path(path_type=Path), default=None, hidden=True)
def main(
    images: tuple[Path, ...],
    *,
    batches: str,
    rounds: int,
    seconds: float,
    network: str,
    cache: Path | None,
    journal: Path | None,
) -> None:
    """Let both take turns, and print a line for every size of a batch."""
    sizes = [int(size) for size in batches.split(",")]
    if cache is not None and journal is not None:
        learn(images, cache, SIZES[network], sizes[0], journal)
        return
    click.echo("| crops a step | one process, s | two, s | times as fast |")
    click.echo("| ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for batch in sizes:
            one, two, error = compared([*map(str, images), "--network", network], Path(folder), batch, rounds, seconds)
            click.echo(f"| {batch} | {one:.3f} | {two:.3f} | {one / two:.3f} ± {error:.3f} |")


if __name__ == "__main__":
    main()
