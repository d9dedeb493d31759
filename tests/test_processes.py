"""Training in several processes: one loss curve, whatever their number; nothing lost when one is."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from pictures import picture
from safetensors.torch import load_file

from unperturb.errors import ProcessLostError, UsageError
from unperturb.model.checkpoint import load
from unperturb.train.boards import summed
from unperturb.train.processes import Processes, processes

TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
FIT = ["-m", "unperturb", "fit"]
SMALL = ["--network", "tiny", "--patch-size", "32", "--batch", "3", "--share", "1", "--precision", "float32"]
AT_ONCE = ["--warmup", "0"]
STEADY = ["--decay", "0", *AT_ONCE, "--validate", "5"]


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """Options of a small run on a few images."""
    for number in range(6):
        picture(tmp_path / "pictures" / f"{number}.png", (40, 48), seed=number)
    return [str(tmp_path / "pictures"), *SMALL, "--held-out", "3", "--cache", str(tmp_path / "cache")]


def ran(command: list[str], *, check: bool = True) -> subprocess.CompletedProcess:
    """Run it; where it takes too long, the launcher is asked to end, so that it ends what it has launched."""
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        told = run.communicate(timeout=200)
    except subprocess.TimeoutExpired:
        run.terminate()
        run.communicate(timeout=60)
        raise
    done = subprocess.CompletedProcess(command, run.returncode, *told)
    if check and done.returncode:
        raise AssertionError(done.stderr)
    return done


def log(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("batch", "share", "world_size"), [(8, 2, 2), (7, 2, 3), (3, 4, 3), (16, 8, 1), (5, 1, 4)])
def test_a_batch_is_shared_out_and_nothing_is_left_or_taken_twice(batch, share, world_size):
    """Break: `range(first, first + share)` without the end of the batch; more than `batch // world_size` at once."""
    parts = [Processes(rank, world_size).parts(batch, share) for rank in range(world_size)]
    assert sorted(item for mine in parts for part in mine for item in part) == list(range(batch))
    assert all(len(part) <= share for mine in parts for part in mine)
    assert all(parts)


@pytest.mark.parametrize("count", [8, 11, 16])
@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_a_power_of_two_of_processes_adds_up_in_the_order_of_one(count, world_size):
    """Break: the second half of the parts after the first, rather than every second one."""
    parts = list(torch.randn(count, 1000, generator=torch.Generator().manual_seed(count)))
    theirs = [summed(parts[rank::world_size]) for rank in range(world_size)]
    assert torch.equal(summed(theirs), summed(parts))


def test_what_cannot_be_shared_out_is_refused():
    with pytest.raises(UsageError, match="a batch of 2 cannot be shared out to 3 processes"):
        Processes(0, 3).parts(2, 1)
    with pytest.raises(UsageError, match="a multiple of the 2 processes"):
        Processes(0, 2).share_of(5)
    assert Processes(1, 2).share_of(6) == 3


def test_one_alone_keeps_what_it_has(monkeypatch):
    tensors = [torch.ones(2), torch.zeros(3)]
    loss, norm, same = Processes().add(0.5, [tensors])
    assert (loss, norm) == (0.5, pytest.approx(2**0.5))
    assert all(one is other for one, other in zip(tensors, same, strict=True))
    assert Processes().threads is None
    assert Processes().agreed(3, torch.device("cpu")) == 3
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with processes(torch.device("cpu")) as alone:
        assert alone.leads
        assert alone.world_size == 1


def test_cores_are_shared_out_by_those_of_one_machine():
    assert Processes(0, 8, 0, 10**6).threads == 1


def test_one_that_was_told_to_end_says_so_before_anything_is_changed():
    """Break: not to look whether the launcher has asked."""
    told = Processes(0, 2)
    told.stop.asked = True
    with pytest.raises(ProcessLostError, match="told to end"):
        told.add(0.0, [[torch.zeros(1)]])


def test_all_processes_know_when_they_are_not_alike(tmp_path):
    """Break: the first alone compared, with itself."""
    script = tmp_path / "ask.py"
    script.write_text(
        "import sys, torch\nfrom pathlib import Path\nfrom unperturb.train.processes import processes\n"
        "cpu = torch.device('cpu')\n"
        "with processes(cpu) as team:\n"
        "    told = f'{team.alike(7, cpu)} {team.alike(team.rank, cpu)}'\n"
        "    Path(sys.argv[1], f'{team.rank}.txt').write_text(told)\n"
    )
    ran([*TWO, str(script), str(tmp_path)])
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)] == ["True False"] * 2


TELLING = """
import sys, time, torch
from functools import partial
from pathlib import Path
from unperturb.train import boards, meeting
from unperturb.train.processes import processes

folder, way = Path(sys.argv[1]), sys.argv[2]
boards.SHARED = meeting.SHARED = Path(sys.argv[3])
done = []

def make(size, number, out):
    done.append((size, number))
    return [torch.add(torch.full((size, 2) if number == 0 else (size,), 1.0), size, out=out[0])]

with processes(torch.device("cpu")) as team:
    if way == "full" and team.rank == 0:
        boards.os.posix_fallocate = lambda *_: (_ for _ in ()).throw(OSError("no space left"))
    if way == "closed" and team.rank == 0:
        meeting.SHARED = Path("/proc")
    if way == "no folder" and team.rank == 0:
        meeting.tempfile.mkdtemp = lambda **_: (_ for _ in ()).throw(OSError("read-only file system"))
    if way == "apart" and team.rank == 1:
        here = boards._is_here
        boards._is_here = lambda name, size: here(f"{name} elsewhere", size)
    if way == "unheard" and team.rank == 1:
        meeting._reached = lambda *_: None
    if way == "two machines":
        object.__setattr__(team, "local_world_size", 1)
    told, before = [], []
    for size in (3, 50, 2, 50):  # boards are made anew where they are too small
        mine = [torch.full((size, 2), 1.0 + team.rank), torch.arange(size, dtype=torch.float32) * 10**team.rank]
        loss, norm, sums = team.add(0.25 + team.rank, [[part.clone() for part in mine]], largest=size)
        at_once = [part.tolist() for part in sums]
        time.sleep(0.2 * team.rank)  # one is late, the other waits
        made = team.made([[part] for part in mine], partial(make, size), map)
        time.sleep(0.2 * (team.rank == 0))  # the other goes on meanwhile
        made = [part for some in made for part in some]
        told.append([loss, norm, *at_once, *(part.tolist() for part in made)])
        told.append([part.tolist() for part in before])
        before = made
        team.add(0.0, [[torch.full((3 * size,), -1.0)]])
    used = all(each._boards and len(each._boards[0][0]) for each in (team.sums, team.values))
    torch.save((told, used, done, [file.name for file in Path(sys.argv[3]).glob("*")]), folder / f"{team.rank}.pt")
"""


@pytest.mark.parametrize(
    ("way", "world_size", "shared"),
    [
        ("memory", 2, True),
        ("memory", 3, True),
        ("closed", 2, True),
        ("no folder", 2, False),
        ("full", 2, False),
        ("apart", 2, False),
        ("unheard", 2, False),
        ("two machines", 2, False),
    ],
)
def test_processes_tell_each_other_the_same_whichever_way(way, world_size, shared, tmp_path):
    """Of three one has no tensor to add up. What was made may be read while the next is.

    Breaks: values on one board; none anew; own numbers alone; read at once; nobody asks others; files left behind;
    each piece by all; pieces begun found among results of another turn; all scale what one has added up.
    """
    script = tmp_path / "tell.py"
    script.write_text(TELLING)
    with tempfile.TemporaryDirectory() as memory:  # the path of a socket is to be short
        ran([*TWO[:-1], str(world_size), str(script), str(tmp_path), way, memory])
    wanted, before, done = [], [], []
    for size in (3, 50, 2, 50):
        places = torch.arange(size, dtype=torch.float32)
        ranks = torch.arange(world_size)
        sums = [torch.full((size, 2), float((1 + ranks).sum())), places * float((10**ranks).sum())]
        norm = float(torch.cat([part.flatten() for part in sums]).norm())
        scale = min(1.0, size / norm)
        made = [torch.full((size, 2), 1.0 + size), torch.full((size,), 1.0 + size)]
        wanted.append([float((0.25 + ranks).sum()), norm, *(scale * part for part in sums), *made])
        wanted.append(before)
        before = made
    for rank in range(world_size):
        told, used, mine, files = torch.load(tmp_path / f"{rank}.pt")
        for ours, theirs in zip(told, wanted, strict=True):
            for one, other in zip(ours, theirs, strict=True):
                torch.testing.assert_close(torch.tensor(one), torch.as_tensor(other))
        assert used == shared
        assert not files
        done.append(len(mine))
    assert shared <= (sum(done) < 8 * world_size), "pieces are shared out"


LOSING = """
import os, sys, numpy, torch
from unperturb.errors import ProcessLostError
from unperturb.model.network import UNetSettings
from unperturb.train.fit import fit
from unperturb.train.meeting import Meeting
from unperturb.train.processes import processes
from unperturb.train.settings import FitSettings
from unperturb.train.state import FitState

at, hear, heard = int(sys.argv[2]), Meeting.hear, []

def ending(self, rank, *numbers):
    heard.append(rank)
    if rank == 1 and len(heard) == at // 2:
        if at % 2:  # it has spoken, and does not listen
            self.links[0].send_bytes(numpy.array(numbers, numpy.float64).tobytes())
        os._exit(1)
    return hear(self, rank, *numbers)

Meeting.hear = ending
settings = FitSettings("gaussian:sigma=0..1", UNetSettings(widths=(8, 16), blocks=1), steps=9, batch=3, share=1)
with processes(torch.device("cpu")) as team:
    state = FitState.start(settings)
    try:
        for _ in fit(state, lambda generator, _: generator.random((1, 16, 16), numpy.float32), precision="float32",
                     processes=team):
            held = state.denoiser.state_dict() | state.averaged.state_dict() | state.optimizer.state()
            kept = {name: value.clone() for name, value in held.items()}
    except ProcessLostError:
        held = state.denoiser.state_dict() | state.averaged.state_dict() | state.optimizer.state()
        same = all(torch.equal(held[name], value) for name, value in kept.items())
        if team.leads:
            print(state.step, same, file=open(sys.argv[1], "w"))
"""


@pytest.mark.parametrize("at", [16, 17, 19, 21])
def test_what_the_others_have_is_as_after_the_last_whole_step(at, tmp_path):
    """Of three processes one ends at any time that it speaks to the others, or does not listen. Breaks: one board."""
    script = tmp_path / "lose.py"
    script.write_text(LOSING)
    ran([*TWO[:-1], "3", str(script), str(tmp_path / "told"), str(at)], check=False)
    step, same = (tmp_path / "told").read_text().split()
    assert int(step) in {2, 3}
    assert same == "True"


def test_two_processes_learn_as_one_does(pictures, tmp_path):
    """One loss curve, and the same weights, bit for bit; and what a checkpoint holds.

    Breaks: gradients of this process alone; the mean of the processes in place of the sum; moments of a share;
    values that others have made not told, or those of the first alone; parts added up in the order of a list.
    """
    loss = {}
    pictures = [*pictures, "--batch", "7"]
    for name, launcher in (("one", [sys.executable]), ("two", TWO)):
        model = tmp_path / f"{name}.safetensors"
        run = [*launcher, *FIT, *pictures, *AT_ONCE, "--steps", "6", "--validate", "1", "-o", str(model)]
        done = ran(run)
        assert done.stdout.count("6 steps, validation") == 1, "the first process alone tells"
        loss[name] = [
            (line["loss"], line["gradient"], line["psnr"]["gray"]) for line in log(tmp_path / f"{name}.log.jsonl")
        ]
    assert len(loss["two"]) == 6
    for one, two in zip(loss["one"], loss["two"], strict=True):
        assert two == pytest.approx(one, rel=1e-12)
    for kind in ("model.safetensors", "model.state.safetensors"):
        ours, theirs = (load_file(tmp_path / kind.replace("model", name, 1)) for name in ("one", "two"))
        for name, value in ours.items():
            assert torch.equal(theirs[name], value), name


THREE_RUNS = """
import sys, numpy, torch
from unperturb.model.network import UNetSettings
from unperturb.train.fit import fit
from unperturb.train.processes import processes
from unperturb.train.settings import FitSettings
from unperturb.train.state import FitState

network = UNetSettings(widths=(8, 16), blocks=1)
runs = [FitSettings("gaussian:sigma=0..1", network, steps=5, batch=2, share=1, seed=seed) for seed in range(3)]
with processes(torch.device("cpu")) as team:
    states = [FitState.start(settings) for settings in runs]
    draw = lambda generator, _: generator.random((1, 16, 16), numpy.float32)
    for _ in zip(*(fit(state, draw, precision="float32", processes=team) for state in states)):
        pass
    if team.leads:
        torch.save([part.state_dict() for state in states for part in (state.denoiser, state.averaged)], sys.argv[1])
"""


def test_runs_of_the_same_processes_leave_each_other_alone(tmp_path):
    """Step by step in turns. Break: one puts its weights where another has its own."""
    script = tmp_path / "three.py"
    script.write_text(THREE_RUNS)
    for name, launcher in (("one", [sys.executable]), ("two", TWO)):
        ran([*launcher, str(script), str(tmp_path / name)])
    one, two = (torch.load(tmp_path / name) for name in ("one", "two"))
    for ours, theirs in zip(one, two, strict=True):
        for name, value in ours.items():
            assert torch.equal(theirs[name], value), name


def test_a_killed_process_ends_the_run_with_a_sentence_and_a_checkpoint(pictures, tmp_path):
    """Break: not to save when another is lost; to change the weights before what the other found has come."""
    model = tmp_path / "model.safetensors"
    long = [*FIT, *pictures, *STEADY, "--steps", "100000", "-o", str(model)]
    run = subprocess.Popen([*TWO, *long], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        journal = tmp_path / "model.log.jsonl"
        begin = time.monotonic()
        while not (journal.is_file() and len(log(journal)) > 1):
            assert time.monotonic() - begin < 120, "it does not begin"
            time.sleep(0.2)
        os.kill(_second(run.pid), signal.SIGKILL)
        _, told = run.communicate(timeout=120)
    finally:
        run.kill()
    assert run.returncode == 1
    sentences = [line for line in told.splitlines() if line.startswith("unperturb:")]
    assert len(sentences) == 1
    assert "another process of this run has ended after step" in sentences[0]
    assert "--resume goes on from there" in sentences[0]
    step = int(sentences[0].split("after step ")[1].split(";")[0])
    found = {}
    for name, options in (("model", ["--resume"]), ("other", [])):
        steady = [
            *FIT,
            *pictures,
            *STEADY,
            "--steps",
            str(step + 2),
            *options,
            "-o",
            str(tmp_path / f"{name}.safetensors"),
        ]
        ran([sys.executable, *steady])
        found[name] = load(tmp_path / f"{name}.safetensors").state_dict()
    for name, value in found["other"].items():
        torch.testing.assert_close(found["model"][name], value, rtol=1e-2, atol=1e-4)


def _second(launcher: int) -> int:
    """Return the process of rank 1."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children")
    if not children.is_file():
        pytest.skip("this system does not tell which processes another has started")
    for child in map(int, children.read_text().split()):
        if b"LOCAL_RANK=1" in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return child
    raise AssertionError("there is no second process")


def test_noisy_data_are_learned_from_in_one_process(pictures, tmp_path):
    run = [*TWO, *FIT, pictures[0], "--noisy", "-o", str(tmp_path / "model.safetensors")]
    done = ran(run, check=False)
    assert done.returncode == 1
    assert done.stderr.count("--noisy learns in one process") == 1
    assert not (tmp_path / "model.safetensors").exists()
