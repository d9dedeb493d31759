"""Signals from one end to the other: learned, filled in, drawn, examined, by the command line (law 15)."""

import contextlib
import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from unperturb.app.cli import main
from unperturb.app.training import _levels
from unperturb.data import signal as signals
from unperturb.data.gaps import bridged, find_gaps
from unperturb.data.noise import estimate_white
from unperturb.data.signal import Signal
from unperturb.data.stretches import SIDES, Stretches, open_stretches, units_of
from unperturb.errors import FileError, TrainingError
from unperturb.infer.interval import calibrations
from unperturb.infer.restore import restore
from unperturb.infer.tiled import Compute
from unperturb.model.card import Card
from unperturb.model.checkpoint import load, save_model
from unperturb.model.denoiser import Denoiser
from unperturb.model.linear import always_erases
from unperturb.model.network import UNetSettings
from unperturb.model.spec import parse


def waves(samples: int = 6000, seed: int = 0) -> np.ndarray:
    """Return two channels of other units: a wave of slowly changing pitch, and its square."""
    generator = np.random.default_rng(seed)
    phase = np.cumsum(0.06 + 0.02 * np.sin(np.arange(samples) / 700)) + generator.uniform(0, 6)
    wave = np.sin(phase)
    return np.stack([100 + 5 * wave, 0.01 * wave**2]).astype(np.float32)


def called(*arguments: object) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error of a command."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(each) for each in arguments])
        except SystemExit as left:
            code = int(left.code or 0)
    return code, out.getvalue(), err.getvalue()


def run(*arguments: object) -> str:
    code, out, err = called(*arguments)
    assert code == 0, err
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a folder with waves, the same with gaps, and a model that fills them in."""
    made = tmp_path_factory.mktemp("signals")
    np.save(made / "waves.npy", waves())
    gappy = waves(seed=1)
    for start in (500, 1500, 2600, 4000):
        gappy[0, start : start + 60] = np.nan
        gappy[1, start + 30 : start + 90] = np.nan
    np.save(made / "gappy.npy", gappy)
    run("fit", made / "waves.npy", "-o", made / "gaps.safetensors", "--network", "tiny",
        "--widths", "16,24,32,48", "--steps", 600, "--batch", 8, "--share", 4,
        "--patch-size", 256, "--perturb", "block:size=20..80,count=1..2",
        "--precision", "float32")  # fmt: skip
    return made


def test_gaps_are_filled_in_and_all_else_stays(folder, tmp_path):
    """Better than lines, and observed samples bit for bit. Breaks: units not given back; one channel's mask for all."""
    run("restore", folder / "gappy.npy", "--missing", "nan", "--model", folder / "gaps.safetensors", "-o", tmp_path)
    seen, found, truth = np.load(folder / "gappy.npy"), np.load(tmp_path / "gappy_restored.npy"), waves(seed=1)
    gone = np.isnan(seen)
    assert np.array_equal(found[~gone], seen[~gone])
    for channel in range(2):
        gaps = gone[channel]
        places = np.arange(len(gaps))
        line = np.interp(places, places[~gaps], seen[channel, ~gaps])
        ours, theirs = (np.square(each - truth[channel])[gaps].mean() for each in (found[channel], line))
        assert ours < 0.5 * theirs


def test_what_is_under_a_mask_makes_no_difference(folder, tmp_path):
    """A file of marks, and other values below it. Break: the units of a channel taken with what is hidden."""
    gone = np.isnan(np.load(folder / "gappy.npy"))
    np.save(tmp_path / "marks.npy", gone.astype(np.uint8))
    found = []
    for name, value in (("one", 0.0), ("two", 1e6)):
        np.save(tmp_path / f"{name}.npy", np.where(gone, np.float32(value), waves(seed=1)))
        run("restore", tmp_path / f"{name}.npy", "--missing", tmp_path / "marks.npy", "--model",
            folder / "gaps.safetensors")  # fmt: skip
        found.append(np.load(tmp_path / f"{name}_restored.npy"))
    assert np.array_equal(*found)


@pytest.mark.parametrize("value", [0.0, 0.1, 3.3, -1000.1])
def test_the_gaps_of_one_value_get_it_and_that_is_said(folder, tmp_path, value):
    """However its mean is rounded. Breaks: units of 1 for what has none; intervals in them; nothing said."""
    values = np.stack([waves(600)[0], np.full(600, value)])
    values[:, 200:260] = np.nan
    np.save(tmp_path / "flat.npy", values)
    asked = (tmp_path / "flat.npy", "--missing", "nan", "--model", folder / "gaps.safetensors")
    code, _, said = called("restore", *asked)
    assert code == 0
    assert "channel 2: one value wherever it was observed" in said
    found = np.load(tmp_path / "flat_restored.npy")
    assert (found[1] == value).all()
    assert np.ptp(found[0, 200:260]) > 0
    told = run("uncertainty", *asked, "-n", 2, "--steps", 2, "-o", tmp_path)
    assert "channel 2: one value" in told
    assert "channel 1: over the 60 missing samples" in told
    assert "channel 2: over" not in told
    with (tmp_path / "flat_uncertainty.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {float(row["channel 2 low"]) for row in rows} == {value}
    assert float(rows[230]["channel 1 low"]) < float(rows[230]["channel 1 high"])
    assert "channel 2: one value" in called("sample", *asked, "-n", 2, "--steps", 2, "-o", tmp_path)[2]


def test_a_model_that_fills_in_has_to_be_told_what_is_missing(folder, tmp_path):
    """Break: all else is changed, and nothing said of it."""
    for command in ("restore", "sample", "uncertainty"):
        code, _, said = called(command, folder / "waves.npy", "--model", folder / "gaps.safetensors", "-o", tmp_path)
        assert code == 2
        assert "--missing says what is" in said
    assert not list(tmp_path.iterdir())
    assert always_erases(parse("erase:fraction=0.5 + gaussian:sigma=0.1 | block:size=4,count=1"))
    assert not always_erases(parse("erase:fraction=0.5 | gaussian:sigma=0.1"))
    assert not always_erases(parse("erase:fraction=0..0.5 + gaussian:sigma=0..0.1"))


def test_another_sampling_rate_is_told(tmp_path):
    """Of what was learned from, now or before. Breaks: rates not kept, or not of both; the same one told."""
    for rate in (250, 360, 500):
        wavfile.write(tmp_path / f"at{rate}.wav", rate, waves(2000)[0])
    model = tmp_path / "model.safetensors"
    run("fit", tmp_path / "at250.wav", tmp_path / "at500.wav", "-o", model, "--network", "tiny", "--steps", 2,
        "--patch-size", 256)  # fmt: skip
    assert load(model).card.rates == (250, 500)
    assert "at 250 and 500" in called("restore", tmp_path / "at360.wav", "--model", model)[2]
    assert "learned" not in called("restore", tmp_path / "at500.wav", "--model", model)[2]
    again = tmp_path / "again.safetensors"
    run("fit", tmp_path / "at360.wav", "-o", again, "--from", model, "--network", "tiny", "--steps", 2,
        "--patch-size", 256)  # fmt: skip
    assert load(again).card.rates == (250, 360, 500)


def test_draws_differ_in_the_gaps_alone(folder, tmp_path):
    run("sample", folder / "gappy.npy", "--missing", "nan", "--model", folder / "gaps.safetensors", "-n", 2, "--steps",
        4, "-o", tmp_path)  # fmt: skip
    one, two = (np.load(tmp_path / f"gappy_sample0{number}.npy") for number in (1, 2))
    gone = np.isnan(np.load(folder / "gappy.npy"))
    assert np.array_equal(one[~gone], two[~gone])
    assert (one[gone] != two[gone]).mean() > 0.99
    assert "<svg" in (tmp_path / "gappy_samples.html").read_text()


def test_a_table_and_a_report_say_how_sure_it_is(folder, tmp_path):
    """Breaks: deviations in units of the channel; intervals around what was observed."""
    more = ("--json", "-o", tmp_path)
    told = json.loads(
        run("uncertainty", folder / "gappy.npy", "--missing", "nan", "--model", folder / "gaps.safetensors", *more)
    )
    assert told["results"][0]["calibrated"]
    with (tmp_path / "gappy_uncertainty.csv").open() as file:
        head, *rows = csv.reader(file)
    assert head[:5] == ["sample", "channel 1 best", "channel 1 std", "channel 1 low", "channel 1 high"]
    table = np.array(rows, dtype=float)
    gone, truth = np.isnan(np.load(folder / "gappy.npy")), waves(seed=1)
    for channel in range(2):
        best, std, low, high = table[:, 1 + 4 * channel : 5 + 4 * channel].T
        gaps = gone[channel]
        assert (std[~gaps] == 0).all()
        assert np.allclose(low[~gaps], truth[channel, ~gaps], rtol=1e-5)
        assert (low[gaps] < best[gaps]).all()
        assert (best[gaps] < high[gaps]).all()
        assert ((low <= truth[channel]) & (truth[channel] <= high))[gaps].mean() > 0.6
        assert 0.001 < std[gaps].mean() / truth[channel].std() < 1


@pytest.fixture
def noise_model(tmp_path) -> Path:
    """Return a model of white noise that has learned nothing."""
    torch.manual_seed(0)
    network = UNetSettings(dims=1, widths=(4, 8), blocks=1)
    save_model(Denoiser(Card(network, "gaussian:sigma=0..1", training={"steps": 1})), tmp_path / "noise.safetensors")
    return tmp_path / "noise.safetensors"


def test_a_channel_without_gaps_says_so(folder, tmp_path):
    """Beside one that has some. Break: the mean width of nothing."""
    values = np.load(folder / "gappy.npy")
    values[1] = np.load(folder / "waves.npy")[1]
    np.save(tmp_path / "a.npy", values)
    asked = ("--missing", "nan", "--model", folder / "gaps.safetensors", "-n", 2, "--steps", 2, "--json")
    code, out, err = called("uncertainty", tmp_path / "a.npy", *asked)
    found = json.loads(out)["results"][0]
    assert (code, "Warning" in err) == (0, False)
    assert found["verdict"][1] == "channel 2: nothing is missing."
    assert found["mean_std"][0] > 0 == found["mean_std"][1]


def test_what_is_observed_with_noise_is_not_certain(noise_model, tmp_path):
    """Beside gaps, where the noise is told by what was done. Breaks: told by --sigma alone; in the table, the trace."""
    values = np.sin(np.arange(400) / 9).astype(np.float32)
    values[100:120] = np.nan
    np.save(tmp_path / "a.npy", values)
    asked = (tmp_path / "a.npy", "--missing", "nan", "--model", noise_model, "--perturb", "gaussian:sigma=0.3")
    told = json.loads(run("uncertainty", *asked, "-o", tmp_path, "--n-samples", 2, "--steps", 2, "--json"))
    assert "over all samples" in told["results"][0]["verdict"][0]
    table = np.loadtxt(tmp_path / "a_uncertainty.csv", delimiter=",", skiprows=1)
    run("restore", *asked, "-o", tmp_path / "best.npy")
    np.testing.assert_allclose(table[:, 1], np.load(tmp_path / "best.npy"), atol=1e-5)
    assert (table[:, 2] > 0).all()
    assert np.abs(table[:, 1] - values)[200:].max() > 0.01


@pytest.mark.parametrize(("kind", "size", "middle"), [(np.int16, 3000, 0), (np.uint8, 80, 128)])
def test_a_table_is_in_the_units_of_its_file(noise_model, tmp_path, kind, size, middle):
    """As the noise that was taken away is. Breaks: in units of the largest; the trace alone; the width; about 0."""
    noise = size / 10
    wave = np.sin(np.arange(400) / 9) + 0.1 * np.random.default_rng(0).standard_normal(400)
    levels = np.rint(middle + size * wave).astype(kind)
    wavfile.write(tmp_path / "a.wav", 100, levels)
    np.save(tmp_path / "a.npy", levels)
    tables = []
    for name in ("a.wav", "a.npy"):
        folder = tmp_path / name[-3:]
        more = ("--sigma", noise, "-o", folder, "--n-samples", 2, "--steps", 2, "--json")
        told = json.loads(run("uncertainty", tmp_path / name, "--model", noise_model, *more))["results"][0]
        assert told["sigma"] == pytest.approx([noise])
        table = np.loadtxt(folder / "a_uncertainty.csv", delimiter=",", skiprows=1)[:, 1:]
        assert told["mean_std"] == pytest.approx([table[:, 1].mean()], rel=1e-4)
        tables.append(table)
    np.testing.assert_allclose(tables[0], tables[1], atol=1)


def test_two_results_do_not_go_to_one_file(folder, tmp_path):
    """Break: a format is found to be said twice that nobody has said."""
    code, _, err = called("uncertainty", folder / "gappy.npy", "-o", tmp_path / "sure.csv", "--missing", "nan",
                          "--model", folder / "gaps.safetensors")  # fmt: skip
    assert code == 2
    assert "give a folder" in err


def test_models_and_files_have_to_fit(folder, tmp_path):
    """One sentence, and nothing written."""
    for arguments, words in (
        (["restore", folder / "gappy.npy", "--missing", "nan"], "no bundled model is for signals"),
        (["restore", folder / "gappy.npy", "--model", "natural"], "the model is for images"),
        (["restore", folder / "gappy.npy", "--model", folder / "gaps.safetensors"], "--missing says"),
        (["restore", folder / "waves.npy", "--model", folder / "gaps.safetensors", "--missing", "nan"], "no sample"),
        (["restore", folder / "gappy.npy", "--model", folder / "gaps.safetensors", "--format", "png"], "is of images"),
        (
            ["uncertainty", folder / "gappy.npy", "--model", folder / "gaps.safetensors", "--region", "0,0,2,2"],
            "region",
        ),
        (["fit", folder / "waves.npy", "-o", tmp_path / "m.safetensors", "--channels", "3"], "one by one"),
        (["fit", folder / "waves.npy", "-o", tmp_path / "m.safetensors", "--part", "0.5..0.2"], "two shares"),
        (["fit", folder / "waves.npy", "-o", tmp_path / "m.safetensors", "--jpeg", "75..95"], "of images"),
        (["fit", folder / "waves.npy", "-o", tmp_path / "m.safetensors", "--reuse", "2"], "of images"),
        (["fit", folder / "waves.npy", "-o", tmp_path / "m.safetensors", "--half-colour"], "for images in colour"),
    ):
        code, _, said = called(*arguments, *([] if "fit" in arguments else ["-o", tmp_path]))
        assert code in (1, 2), arguments
        assert words in said, said
    assert not list(tmp_path.iterdir())


def test_white_noise_is_found_and_taken_away(tmp_path):
    """With --sigma auto. Break: the level in the units of the file taken for one of the channel."""
    np.save(tmp_path / "waves.npy", waves())
    run("fit", tmp_path / "waves.npy", "-o", tmp_path / "noise.safetensors", "--network", "tiny", "--steps", 120,
        "--batch", 8, "--share", 4, "--patch-size", 256, "--rate", 3e-3, "--precision", "float32")  # fmt: skip
    clean = waves(seed=1)
    unit = clean.std(1, keepdims=True)
    np.save(
        tmp_path / "noisy.npy", clean + 0.5 * unit * np.random.default_rng(0).standard_normal(clean.shape, np.float32)
    )
    told = json.loads(run("restore", tmp_path / "noisy.npy", "--model", tmp_path / "noise.safetensors", "--json"))
    assert told["results"][0]["sigma"] == pytest.approx((0.5 * unit[:, 0]).tolist(), rel=0.1)
    error = (np.load(tmp_path / "noisy_restored.npy") - clean) / unit
    assert np.sqrt(np.square(error).mean()) < 0.25


def test_a_long_signal_is_cut_into_tiles_without_a_seam(folder):
    """Break: the halo of images, in place of all that the network sees."""
    denoiser, seen = load(folder / "gaps.safetensors"), np.load(folder / "gappy.npy")
    units = units_of(seen[0])
    missing = np.isnan(seen[0])
    values = units.taken(np.where(missing, seen[0, 0], seen[0]))
    whole, cut = (
        restore(values, denoiser, missing=missing, compute=Compute(tile=tile, precision="float32"))
        for tile in (None, 1024)
    )
    assert np.abs(whole - cut).max() < 1e-4


def test_stretches_hold_no_gap_and_keep_a_part_aside(tmp_path):
    """Breaks: gaps filled with zeros; what is held out learned from as well."""
    values = waves(4000)
    values[0, 700:720] = np.nan
    np.save(tmp_path / "a.npy", values)
    material = open_stretches([tmp_path / "a.npy"])
    assert all(np.isfinite(each).all() for each in material.values)
    assert sum(map(len, material.values)) == 2 * 4000 - 20
    kept, learned = material.of(held_out=True), material.of(held_out=False)
    assert sum(map(len, kept.values)) == 2 * 200
    assert len(kept) + len(learned) == len(material)
    crop = learned.crop(np.random.default_rng(0), 64, gray=True)
    assert crop.shape == (1, 64)
    assert abs(float(np.concatenate(material.values[:3]).std()) - 1) < 0.1
    half = open_stretches([tmp_path / "a.npy"], (0.0, 0.5))
    assert sum(map(len, half.values)) == 4000 - 20
    assert half.key != material.key
    with pytest.raises(TrainingError, match="no stretch"):
        material.at_least(5000)
    assert kept.values[0].tolist() == material.values[2].tolist()  # the eleventh of twenty parts
    assert material.pieces(3, 100)[0].shape == (100,)
    assert SIDES[-1] <= material.largest


def test_what_is_held_out_is_where_there_is_something(tmp_path):
    """Break: the middle, though it is a gap."""
    values = waves(6000)[:1]
    values[0, 2990:3260] = np.nan
    np.save(tmp_path / "a.npy", values)
    kept = open_stretches([tmp_path / "a.npy"]).of(held_out=True)
    assert list(map(len, kept.values)) == [290]


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_a_signal_far_from_zero_is_heard_in_all_its_digits(folder, tmp_path, dtype):
    """Breaks: 32 bits before the offset is taken off, or after it is put back; seven digits in the table."""
    wave = np.round(waves(2000, seed=3)[0].astype(np.float64) * 1e4)
    gone = np.zeros(2000, bool)  # truth values are as good as numbers for marks
    gone[800:830] = True
    missing = tmp_path / "gone.npy"
    np.save(missing, gone)
    found = []
    for offset in (0, 10**12):
        np.save(tmp_path / "far.npy", (wave + offset).astype(dtype))
        asked = (tmp_path / "far.npy", "--missing", missing, "--model", folder / "gaps.safetensors", "--overwrite")
        run("restore", *asked, "-o", tmp_path / "filled.npy")
        run("uncertainty", *asked, "-o", tmp_path, "--n-samples", 2, "--steps", 2)
        table = list(csv.DictReader((tmp_path / "far_uncertainty.csv").read_text().splitlines()))
        found.append(
            (np.load(tmp_path / "filled.npy") - offset, [float(row["channel 1 best"]) - offset for row in table])
        )
    (near, sure), (far, surely) = found
    assert np.abs(near - far).max() <= 1
    assert np.abs(np.array(sure) - surely).max() <= 1


def test_the_samples_of_a_record_say_which_file_names_it(noise_model, tmp_path):
    """Breaks: taken for an image; in training."""
    for name in ("a.dat", "a.hea"):
        (tmp_path / name).write_bytes(b"a 1 100 10")
    for arguments in (["restore", tmp_path / "a.dat", "--model", noise_model], ["fit", tmp_path / "a.dat", "-o",
                      tmp_path / "m.safetensors"]):  # fmt: skip
        code, _, err = called(*arguments)
        assert code != 0
        assert f"holds the samples of the record {tmp_path / 'a.hea'}; name that" in err


def test_what_holds_one_value_is_not_learned_from(tmp_path):
    """Breaks: channels without a change; files of nothing else; of all where a part is learned; a file twice."""
    values = waves(600)[:2]
    values[1] = 3
    np.save(tmp_path / "a.npy", values)
    assert all(each.std() > 0 for each in open_stretches([tmp_path / "a.npy"]).values)
    values[0, :300] = 2
    np.save(tmp_path / "a.npy", values)
    for part in ((0.0, 0.5), (0.1, 0.3)):
        with pytest.raises(FileError, match="in that part has values that change"):
            open_stretches([tmp_path / "a.npy"], part)
    once = len(open_stretches([tmp_path / "a.npy"]))
    assert len(open_stretches([tmp_path / "a.npy", tmp_path / "." / "a.npy"])) == once


def test_options_of_images_are_refused_for_signals(noise_model, tmp_path):
    """Before anything is read. Breaks: held out; shown beside; a level beyond the signal's range."""
    np.save(tmp_path / "a.npy", waves(600)[0])
    for arguments, words in (
        (["fit", tmp_path / "a.npy", "-o", tmp_path / "m.safetensors", "--held-out", 5], "are of images"),
        (["fit", tmp_path / "a.npy", "-o", tmp_path / "m.safetensors", "--gray", 0.3], "are of images"),
        (["restore", tmp_path / "a.npy", "--model", noise_model, "--compare"], "are of images"),
        (["restore", tmp_path / "a.npy", "--model", noise_model, "--quality", "best"], "are of images"),
        (["restore", tmp_path / "a.npy", "--model", noise_model, "--sigma", 15], "larger than the whole range"),
        (["diagnose", tmp_path / "a.npy"], "is a signal, or a table, where an image is wanted"),
    ):
        code, _, err = called(*arguments)
        assert code in (1, 2), arguments
        assert words in err, arguments
        assert {path.name for path in tmp_path.iterdir()} == {"a.npy", noise_model.name}


def test_what_is_learned_from_is_not_replaced(folder, tmp_path):
    """Break: --overwrite is taken at its word."""
    source = tmp_path / "a.npy"
    source.write_bytes((folder / "waves.npy").read_bytes())
    code, _, err = called("fit", source, "-o", source, "--overwrite", "--network", "tiny", "--steps", 2)
    assert (code, source.read_bytes()) == (2, (folder / "waves.npy").read_bytes())
    assert "would be replaced" in err


def test_a_model_of_signals_is_calibrated_as_it_is_made(folder):
    made = calibrations(load(folder / "gaps.safetensors").card)
    assert [each.statistic for each in made] == ["pixel"]
    assert made[0].level == 0.9
    assert made[0].n_images >= 1


def test_gaps_are_found_and_forgotten(tmp_path):
    values = np.arange(12, dtype=np.float64).reshape(2, 6)
    values[0, 2] = np.nan
    signal = Signal(values)
    gaps = find_gaps(signal, "nan", "it")
    assert gaps.sum() == 1
    assert bridged(signal, gaps).values[0, 2] == 0
    signals.write(Signal(np.array([[0, 0, 1, 0, 0, 0]])), tmp_path / "marks.npy")
    assert find_gaps(signal, str(tmp_path / "marks.npy"), "it").sum() == 2
    with pytest.raises(FileError, match="do not fit"):
        signals.write(Signal(np.zeros((1, 5))), tmp_path / "short.npy")
        find_gaps(signal, str(tmp_path / "short.npy"), "it")
    with pytest.raises(FileError, match="as a whole"):
        find_gaps(Signal(np.full((1, 4), np.nan)), "nan", "it")


def test_the_level_of_white_noise_is_estimated_beside_a_slow_signal():
    """Within a tenth. Break: the deviation of all of it."""
    generator = np.random.default_rng(0)
    slow = np.cumsum(generator.standard_normal(20_000)) * 0.02
    for sigma in (0.1, 1.0, 10.0):
        assert estimate_white(slow + sigma * generator.standard_normal(20_000)) == pytest.approx(sigma, rel=0.1)
    assert estimate_white(np.zeros(3)) == 0


def test_units_are_those_of_what_was_observed():
    units = units_of(np.array([1.0, np.nan, 3.0, 5.0]))
    assert units.offset == 3
    assert units.given_back(units.taken(np.array([4.0]))) == pytest.approx([4.0])
    assert units_of(np.full(3, np.nan)).scale == units_of(np.full(3, 7.0)).scale == 1
    assert units_of(np.full(1900, 3.3)).scale == 1  # whose standard deviation is what rounding leaves
    assert isinstance(Stretches((), ()).largest, int)


@pytest.mark.parametrize(
    ("spec", "level"),
    [("gaussian:sigma=0..0.4", 0.4), ("gaussian:sigma=0.1 | gaussian:sigma=0.3", 0.3),
     ("gaussian:sigma=0.3 + gaussian:sigma=0.4", 0.5)],
)  # fmt: skip
def test_intervals_are_calibrated_up_to_the_strongest_noise(spec, level):
    """Break: of several kinds of noise, up to 1."""
    assert _levels(parse(spec))[-1] == pytest.approx(level)
