"""Signals come back as they were, in all formats; what is no signal is refused clearly.

Files are made by independent means (SciPy, NumPy, wfdb, or byte by byte), and what was written is looked at by them
again.
"""

import dataclasses
import math
import struct
import sys
import tracemalloc
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.io import wavfile

from unperturb.data.recording import Recording
from unperturb.data.signal import Levels, Signal, check_finite, read, write
from unperturb.errors import FileError, UsageError

ECG = Path(__file__).parents[1] / ".." / "shared" / "data" / "test" / "ecg"
WIDTHS = {"uint8": 1, "int16": 2, "int24": 3, "int32": 4, "float32": 4, "float64": 8}


def samples(shape: tuple[int, ...], dtype: str = "int16", seed: int = 0) -> np.ndarray:
    """Return random samples, the lowest and the highest among integers."""
    rng = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return rng.normal(0.0, 2.0, shape).astype(dtype)
    low, high = (-(2**23), 2**23 - 1) if dtype == "int24" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    values = rng.integers(low, high, shape, dtype="int32" if dtype == "int24" else dtype, endpoint=True)
    values.flat[0], values.flat[-1] = low, high
    return values


def chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def wav(
    values: np.ndarray, width: int, rate: int = 8000, more: tuple[bytes, ...] = (), tag: int | None = None
) -> bytes:
    """Return a WAV file of ``(C, T)`` values, with more chunks behind."""
    channels, tag = len(values), tag or (3 if values.dtype.kind == "f" else 1)
    kind = struct.pack("<HHIIHH", tag, channels, rate, rate * channels * width, channels * width, 8 * width)
    data = np.ascontiguousarray(values.T)
    body = data.view(np.uint8).reshape(-1, data.itemsize)[:, :width].tobytes()
    content = b"WAVE" + chunk(b"fmt ", kind) + chunk(b"data", body) + b"".join(more)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def wrsamp(folder: Path, name: str, rate: float, values: np.ndarray, fmt: str, **told: list) -> None:
    """Write a WFDB record of ``(T, C)`` samples; the package's own use of pandas is not what is tested."""
    wfdb = wfdb_package()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wfdb.wrsamp(name, rate, d_signal=values, fmt=[fmt] * values.shape[1], write_dir=str(folder), **told)


def wfdb_package() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("wfdb")


def record(folder: Path, fmt: str = "16", n_samples: int = 50, gaps: bool = True) -> np.ndarray:
    """Write a WFDB record of two channels with different gains, and return its samples, ``(T, C)``."""
    values = np.random.default_rng(1).integers(-100, 100, (n_samples, 2))
    if gaps:
        values[3, 1] = {"80": -128, "212": -2048, "16": -32768, "24": -(2**23), "32": -(2**31), "516": -32768}[fmt]
    told = {"units": ["mV", "mmHg"], "sig_name": ["II", "a b"], "adc_gain": [200.0, 12.5], "baseline": [10, -7]}
    wrsamp(folder, "in", 250.5, values, fmt, comments=["age: 61"], **told)
    return values


def again(path: Path, suffix: str | None = None) -> tuple[Signal, Path]:
    """Read, go to floats and back, write, and return the signal with the path of the copy."""
    signal = read(path)
    copy = path.with_name("copy" + (suffix or path.suffix))
    write(signal.with_float(signal.as_float()), copy, overwrite=True)
    return signal, copy


def assert_same(one: Signal, other: Signal) -> None:
    assert (one.format, one.values.dtype, one.rate) == (other.format, other.values.dtype, other.rate)
    assert (one.names, one.units, one.levels) == (other.names, other.units, other.levels)
    assert one.values.shape == other.values.shape
    assert np.ascontiguousarray(one.values).tobytes() == np.ascontiguousarray(other.values).tobytes()


# Values: the way to floats and back


def test_restoration_knows_a_signal_by_the_members_of_a_recording() -> None:
    """Break: `stack_shape` renamed."""
    used = {"values", "axes", "format", "metadata", "is_colour", "stack_shape", "full_scale"}
    used |= {"as_float", "with_float", "planes", "with_planes"}
    signal = Signal(samples((2, 5)))
    assert all(hasattr(one, name) for name in used for one in (signal, Recording(np.zeros((2, 2)), "YX")))
    indices = [index for index, _ in signal.planes()]
    assert indices == list(np.ndindex(signal.stack_shape))
    assert all(plane.shape == (5,) and plane.dtype == np.float32 for _, plane in signal.planes())


@pytest.mark.parametrize(
    "dtype", ["int8", "int16", "int32", "int64", "uint8", "uint32", "uint64", "float16", "float64"]
)
def test_samples_that_did_not_change_keep_every_bit_and_the_others_change(dtype: str) -> None:
    """Samples of 64 bits do not survive 32-bit floats. Break: `unchanged` all false in `_to_stored`."""
    signal = Signal(samples((2, 300), dtype))
    floats = signal.as_float()
    np.testing.assert_array_equal(signal.with_float(floats).values, signal.values)
    floats[1, 7] = 3.0
    changed = signal.with_float(floats).values
    assert changed[1, 7] == 3
    changed[1, 7] = signal.values[1, 7]
    np.testing.assert_array_equal(changed, signal.values)


def test_integers_are_rounded_and_clipped_and_floats_are_neither() -> None:
    """Break: no `rint` in `_rounded`; the upper limit not drawn in, so that 64-bit integers turn over."""
    wild = np.array([[-1e30, 1.6, -1.6, 1e30]])
    for dtype in ("int16", "uint8", "int64", "uint64"):
        info = np.iinfo(dtype)
        stored = Signal(np.full((1, 4), 9, dtype)).with_float(wild).values
        assert stored[0, :3].tolist() == [info.min, 2, max(-2, info.min)]
        assert info.max - 2048 < int(stored[0, 3]) <= info.max
    kept = Signal(np.full((1, 4), 9, np.float64)).with_float(wild).values
    np.testing.assert_array_equal(kept, wild)
    half = Signal(np.zeros((1, 3), np.float16)).with_float(np.array([[1e9, -1e9, np.inf]]))
    assert half.values.tolist() == [[65504, -65504, np.inf]]


def test_levels_are_those_of_each_channel_and_gaps_are_nan() -> None:
    """Break: the levels of the first channel for all; NaN rounded to the level of 0."""
    levels = (Levels(200, 10, -32767, 32767, -32768), Levels(12.5, -7, -2047, 2047, -2048))
    signal = Signal(np.array([[210, -32768], [18, -2048]], np.int16), levels=levels)
    np.testing.assert_array_equal(signal.as_float(), [[1.0, np.nan], [2.0, np.nan]])
    assert signal.missing.tolist() == [[False, True], [False, True]]
    changed = signal.with_float(np.array([[np.nan, 1.0], [1e9, -1e9]]))
    assert changed.values.tolist() == [[-32768, 210], [2047, -2047]]
    assert changed.missing.tolist() == [[True, False], [False, False]]
    assert Signal(np.array([[1.0, np.nan]])).missing.tolist() == [[False, True]]


def test_values_that_do_not_fit_are_refused() -> None:
    signal = Signal(samples((2, 3)))
    for wrong in (np.full((2, 3), np.nan), np.full((2, 3), np.inf), np.zeros((3, 2))):
        with pytest.raises(UsageError):
            signal.with_float(wrong)
    one = np.zeros(3)
    for planes in ([((0,), one)], [((0,), one)] * 2, [((2,), one)], [((0,), np.zeros(2))]):
        with pytest.raises(UsageError, match="channel"):
            signal.with_planes(planes)


@pytest.mark.parametrize(
    "wrong",
    [
        {"values": np.zeros(3)},
        {"values": np.zeros((2, 0))},
        {"values": np.zeros((1, 2), bool)},
        {"values": np.zeros((1, 2), complex)},
        {"rate": 0.0},
        {"rate": np.inf},
        {"names": ("a",)},
        {"units": ("V", "V", "V")},
        {"levels": (Levels(1, 0, 0, 1),) * 2},
    ],
)
def test_a_signal_that_contradicts_itself_is_refused(wrong: dict) -> None:
    with pytest.raises(UsageError):
        Signal(**{"values": np.zeros((2, 3)), **wrong})


def test_what_is_not_finite_is_told_with_its_place() -> None:
    signal = Signal(np.array([[1.0, 2.0, 3.0], [1.0, np.nan, np.inf]]), names=("I", "II"))
    with pytest.raises(FileError, match=r"2 samples that are not finite .first at sample 1 of II, "):
        check_finite(signal, "x")
    check_finite(Signal(samples((2, 3))), "x")


# WAV


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("dtype", WIDTHS)
def test_a_wav_file_returns_byte_for_byte(tmp_path: Path, dtype: str, channels: int) -> None:
    """Break: the chunks behind the samples not carried; 24 bits written from the upper bytes."""
    values = samples((channels, 301), dtype)
    more = (chunk(b"LIST", b"INFOIART\x04\0\0\0Me!\0"), chunk(b"odd ", b"123"))
    path = tmp_path / "in.wav"
    path.write_bytes(wav(values, WIDTHS[dtype], 22050, more))
    signal, copy = again(path)
    np.testing.assert_array_equal(signal.values, values)
    assert (signal.rate, signal.format) == (22050.0, "wav")
    assert copy.read_bytes() == path.read_bytes()
    assert_same(signal, read(copy))


@pytest.mark.parametrize(("dtype", "scale"), [("uint8", 128), ("int16", 2**15), ("int24", 2**23), ("int32", 2**31)])
def test_wav_integers_are_from_minus_one_to_one(tmp_path: Path, dtype: str, scale: int) -> None:
    """Break: 8 bits around 0 instead of 128."""
    path = tmp_path / "in.wav"
    path.write_bytes(wav(samples((1, 40), dtype), WIDTHS[dtype]))
    signal = read(path)
    floats = signal.as_float()
    assert (floats.min(), signal.full_scale) == (-1.0, scale)
    assert 1 - 1.0 / scale <= floats.max() <= 1.0
    wild = signal.with_float(np.linspace(-3, 3, 40, dtype=np.float32)[None])
    write(wild, path, overwrite=True)
    changed = read(path).as_float()
    np.testing.assert_allclose(changed[0], np.linspace(-3, 3, 40).clip(-1, 1 - 1 / scale), atol=0.51 / scale + 1e-7)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
def test_other_programs_agree_on_wav(tmp_path: Path, dtype: str) -> None:
    values = samples((2, 33), dtype)
    wavfile.write(tmp_path / "in.wav", 44100, values.T)
    signal, copy = again(tmp_path / "in.wav")
    np.testing.assert_array_equal(signal.values, values)
    rate, seen = wavfile.read(copy)
    assert (rate, seen.dtype) == (44100, values.dtype)
    np.testing.assert_array_equal(seen.T, values)


def test_what_would_be_false_in_a_wav_file_is_left_out(tmp_path: Path) -> None:
    """Break: PEAK carried; the number of samples of the old file kept for a shorter one."""
    values = samples((1, 10), "float32")
    peak, fact = chunk(b"PEAK", b"\1\0\0\0" + b"\0" * 12), chunk(b"fact", struct.pack("<I", 10))
    (tmp_path / "in.wav").write_bytes(wav(values, 4, more=(peak, fact)))
    signal, copy = again(tmp_path / "in.wav")
    assert b"PEAK" not in copy.read_bytes()
    assert fact in copy.read_bytes()
    write(dataclasses.replace(signal, values=signal.values[:, :4]), copy, overwrite=True)
    assert fact not in copy.read_bytes()
    np.testing.assert_array_equal(read(copy).values, values[:, :4])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"Dear Sir or Madam, this is a letter.", "not a WAV file"),
        (wav(samples((2, 40)), 2)[:-30], "cut short"),
        (wav(samples((2, 40)), 2)[:44], "cut short"),
        (wav(samples((2, 40)), 2)[:30], "cut short"),
        (wav(np.zeros((1, 0), np.int16), 2), "no samples"),
        (wav(samples((1, 40), "uint8"), 1, tag=7), "µ-law"),
        (wav(samples((1, 40), "uint8"), 1, tag=85), "MP3"),
        (wav(samples((1, 40), "float64"), 8, tag=1), "64 bits"),
        (b"RF64" + wav(samples((1, 4)), 2)[4:], "RF64"),
        (b"RIFX" + wav(samples((1, 4)), 2)[4:], "big-endian"),
        (b"", "empty"),
    ],
)
def test_what_is_no_wav_file_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    """Break: a length beyond the end of the file let through."""
    path = tmp_path / "in.wav"
    path.write_bytes(content)
    with pytest.raises(FileError, match=said) as told:
        read(path)
    assert str(told.value).count("\n") == 0


def test_a_wav_file_needs_a_whole_rate(tmp_path: Path) -> None:
    for rate in (None, 250.5):
        with pytest.raises(FileError, match="whole number"):
            write(Signal(samples((1, 5)), rate=rate), tmp_path / "out.wav")
    assert not list(tmp_path.iterdir())


# NumPy


@pytest.mark.parametrize("dtype", ["<i2", ">i4", "|u1", "|i1", "<i8", "<f2", ">f4", "<f8", "<u8"])
@pytest.mark.parametrize("shape", [(50,), (3, 50), (50, 3)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_returns_byte_for_byte(tmp_path: Path, dtype: str, shape: tuple[int, ...], order: str) -> None:
    """Break: the axis of time not put back; the order of bytes lost; the order in memory lost."""
    array = np.asarray(samples(shape, np.dtype(dtype).name).astype(dtype), order=order)
    np.save(tmp_path / "in.npy", array)
    signal, copy = again(tmp_path / "in.npy")
    assert signal.values.shape == (1 if len(shape) == 1 else 3, 50)
    assert signal.values.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(
        signal.values, array[None] if len(shape) == 1 else array.T if shape[0] == 50 else array
    )
    assert copy.read_bytes() == (tmp_path / "in.npy").read_bytes()


def test_which_axis_is_time_can_be_told_and_so_can_the_rate(tmp_path: Path) -> None:
    """Break: what is told of time not heard."""
    np.save(tmp_path / "in.npy", samples((3, 50)))
    signal = read(tmp_path / "in.npy", time_axis=0, rate=500)
    assert (signal.values.shape, signal.rate) == ((50, 3), 500)
    write(signal, tmp_path / "copy.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "copy.npy"), samples((3, 50)))
    np.save(tmp_path / "in.npy", samples((4, 4)))
    np.testing.assert_array_equal(read(tmp_path / "in.npy").values, samples((4, 4)))
    with pytest.raises(UsageError, match="axis 2"):
        read(tmp_path / "in.npy", time_axis=2)
    (tmp_path / "in.wav").write_bytes(wav(samples((1, 4)), 2))
    with pytest.raises(UsageError, match="axis"):
        read(tmp_path / "in.wav", time_axis=0)
    with pytest.raises(UsageError, match="8000 samples a second, not 500"):
        read(tmp_path / "in.wav", rate=500)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.array([1, "a"], object), "Python objects"),
        (np.zeros(4, complex), "complex"),
        (np.array(["a", "b"]), "type"),
        (np.zeros(4, bool), "type"),
        (np.zeros((2, 3, 4)), "3 axes"),
        (np.float64(1), "0 axes"),
        (np.zeros((2, 0)), "no samples"),
    ],
)
def test_arrays_that_are_no_signals_are_refused(tmp_path: Path, array: np.ndarray, said: str) -> None:
    np.save(tmp_path / "in.npy", array, allow_pickle=True)
    with pytest.raises(FileError, match=said):
        read(tmp_path / "in.npy")


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    """Break: no check of the header, and `allow_pickle=True` without a memory map."""
    done = tmp_path / "done"

    class Hostile:
        def __reduce__(self):
            return (Path.touch, (done,))

    np.save(tmp_path / "in.npy", np.array([Hostile()], object), allow_pickle=True)
    with pytest.raises(FileError):
        read(tmp_path / "in.npy")
    assert not done.exists()


@pytest.mark.parametrize(("content", "said"), [(b"1,2,3\n", "not a .npy"), (b"PK\3\4", "archive"), (b"", "empty")])
def test_what_is_no_array_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "in.npy").write_bytes(content)
    with pytest.raises(FileError, match=said):
        read(tmp_path / "in.npy")


def test_an_array_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", samples((2, 500)))
    data = (tmp_path / "in.npy").read_bytes()
    for length, said in ((500, "cut short"), (40, "header")):
        (tmp_path / "in.npy").write_bytes(data[:length])
        with pytest.raises(FileError, match=said):
            read(tmp_path / "in.npy")


# CSV


def csv_file(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "in.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n3,4\n",
        "1.5\n-2.25\n1e-300\n",
        "time (ms),ECG (mV),remark\n0.0,-0.145,\n2.5,,R\n5.0,0.1,\n",
        "t;x [V]\r\n0.0;1\r\n0.5;\r\n1.0;3\r\n",
        "# made by a thing\n# of ours\na\tb\n0.1\tnan\nNA\t0.2\n",
        '"name, with comma",b\n0.1,9007199254740993.5\n0.3,1.7976931348623157e+308\n',
        "n\n9007199254740993\n-9223372036854775808\n9223372036854775807\n",
        "only\n1.5\n\"\"\n2.5\n",
        "timestamp,x\n1700000000000000001,1\n1700000000000000003,2\n1700000000000000005,3\n",
        "\ufeffx (µV)\n1.5\ninf\n",
    ],
)  # fmt: skip
def test_a_csv_file_returns_with_all_that_is_not_spelling(tmp_path: Path, text: str) -> None:
    """Break: `:.6g` for numbers; rows counted instead of times; integers of mixed columns as floats; no remarks."""
    path = csv_file(tmp_path, text)
    signal, copy = again(path)
    assert_same(signal, read(copy))
    spelt = text.replace("9007199254740993.5", "9007199254740994.0")
    assert copy.read_bytes().decode() == spelt


def test_csv_columns_are_channels_with_names_units_gaps_and_a_rate(tmp_path: Path) -> None:
    """Break: the unit of time ignored; text taken for a channel; an empty cell as 0."""
    path = csv_file(tmp_path, "time_ms,ECG (mV),remark,x [m/s]\n0,-0.145,,1\n2.5,,R,2\n5,0.1,,3\n")
    signal = read(path)
    np.testing.assert_array_equal(signal.values, [[-0.145, np.nan, 0.1], [1, 2, 3]])
    assert signal.missing.sum() == 1
    assert (signal.rate, signal.names, signal.units) == (400.0, ("ECG", "x"), ("mV", "m/s"))
    assert read(csv_file(tmp_path, "a,b\n1,2\n3,4\n")).values.dtype == np.int64
    bare = read(csv_file(tmp_path, "1,2.5\n3,4\n"), rate=100)
    assert (bare.names, bare.units, bare.rate, bare.values.shape) == ((), (), 100, (2, 2))


def test_a_column_that_counts_rows_is_carried(tmp_path: Path) -> None:
    """Beside another, whatever its name.

    Breaks: a channel like others; few rows; all that rises; the only one; what is too large to be counted on.
    """
    rows = [(at, 1026 + at % 3, 2 * at) for at in range(20)]
    path = csv_file(tmp_path, "'sample #','MLII',x\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows))
    signal = read(path)
    assert (signal.names, signal.rate) == (("'MLII'", "x"), None)
    copy = tmp_path / "copy.csv"
    write(dataclasses.replace(signal, values=signal.values + 1), copy)
    assert copy.read_text().splitlines()[:3] == ["'sample #','MLII',x", "0,1027,1", "1,1028,3"]
    assert read(csv_file(tmp_path, "a,b\n1,5\n2,6\n3,8\n")).names == ("a", "b")
    assert read(csv_file(tmp_path, "a\n" + "".join(f"{at}\n" for at in range(20)))).names == ("a",)
    assert read(csv_file(tmp_path, "a,b\n" + "".join(f"{2**60},{at % 3}\n" for at in range(20)))).names == ("a", "b")
    assert read(csv_file(tmp_path, "a,b\n" + "".join(f"1e17,{at % 3}.5\n" for at in range(20)))).names == ("a", "b")
    assert read(csv_file(tmp_path, '"time, ms",x\n0,5\n2,6\n4,8\n')).rate == 500


@pytest.mark.parametrize("rate", [360, 250, 44100, 0.1, 1 / 3, 12.5, 1e6, 128])
@pytest.mark.parametrize("digits", [None, 6])
def test_rounded_times_give_the_rate(tmp_path: Path, rate: float, digits: int | None) -> None:
    """To all the digits that are known of it. Break: the slope as it is; steps taken for constant to 1e-9 only."""
    times = np.arange(2000) / rate
    printed = [repr(time) if digits is None else f"{time:.{digits}f}" for time in times.tolist()]
    if len(set(printed)) < len(printed):
        pytest.skip("times that are rounded to the same are no times")
    signal = read(csv_file(tmp_path, "t,x\n" + "".join(f"{time},{at}\n" for at, time in enumerate(printed))))
    assert signal.values.shape == (1, 2000)
    assert signal.rate == pytest.approx(rate, rel=1e-3 if digits and rate > 1e5 else 1e-6)
    if digits is None and rate != 1 / 3:
        assert signal.rate == rate


def test_columns_that_are_named_like_times_and_are_none(tmp_path: Path) -> None:
    """A t may be a temperature; a time that jumps is refused. Break: any column named t taken for times."""
    warm = read(csv_file(tmp_path, "t,x\n20.5,1\n20.1,2\n22.0,3\n"))
    assert (warm.names, warm.rate) == (("t", "x"), None)
    assert read(csv_file(tmp_path, '"t, min",x\n20.5,1\n20.1,2\n22.0,3\n')).rate is None
    for times in ((0, 1, 7), (0, 2, 1), (0, 0, 1), (0, "", 2)):
        rows = "".join(f"{time},1\n" for time in times)
        with pytest.raises(FileError, match="constant step"):
            read(csv_file(tmp_path, "time,x\n" + rows))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\nx,y\nz,w\n", "no column of numbers"),
        ("a;b\n1,5;2,5\n", "points for decimals"),
        ("a;b\n1;0\n2,5;1\n3,5;1\n", "'2,5' in line 3 of the column 'a'; save numbers with points for decimals"),
        ("a;b\n1;0\n2,5;1\n2;1\n3,5;1\n", "points for decimals"),
        ("a;b\n1,5e-3;0\n2,5e-3;1\n", "points for decimals"),
        ("a,b\n1,0.5\n?,2\n3,2\n", "'\\?' in line 3 of the column 'a', which has numbers elsewhere"),
        ("1,0.5\n3,2\n2,x\n", "'x' in line 3 of column 2, which has"),
        ("time,remark\n0,a\n1,b\n", "no column of numbers"),
        ("a,b\n1,2\n3\n", "1 cells in line 3 and 2"),
        ("a,b\n1,2\n3,4,5\n", "3 cells in line 3"),
        ("a\n1\n\n2\n", "line 3"),
        ("a,b\n", "no samples"),
        ("# nothing\n", "no samples"),
        ("", "empty"),
        ("a,b\n9007199254740993,0.5\n1,0.5\n", "2\\^53"),
        ('a\n"1\n', "CSV"),
    ],
)
def test_what_is_no_csv_signal_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """Break: short rows filled up with gaps."""
    with pytest.raises(FileError, match=said):
        read(csv_file(tmp_path, text))


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="UTF-8"):
        read(csv_file(tmp_path, "x (µV)\n1\n", "latin-1"))


# WFDB


@pytest.mark.parametrize("fmt", ["80", "212", "16", "24", "32", "516"])
def test_a_record_returns_with_its_format(tmp_path: Path, fmt: str) -> None:
    """Break: the carried format replaced by 16; gaps not told apart; the baseline left out."""
    values = record(tmp_path, fmt=fmt)
    signal, copy = again(tmp_path / "in.hea")
    np.testing.assert_array_equal(signal.values.T, values)
    assert (signal.rate, signal.names, signal.units) == (250.5, ("II", "a b"), ("mV", "mmHg"))
    assert np.argwhere(signal.missing).tolist() == [[1, 3]]
    np.testing.assert_allclose(signal.as_float()[0], (values[:, 0] - 10) / 200, rtol=1e-6)
    assert_same(signal, read(copy))
    assert copy.with_suffix(".dat").read_bytes() == (tmp_path / "in.dat").read_bytes()
    assert copy.read_text() == (tmp_path / "in.hea").read_text().replace("in", "copy", 1).replace("in.dat", "copy.dat")


@pytest.mark.parametrize("name", ["118e06", "118e24"])
def test_a_real_ecg_returns_byte_for_byte(tmp_path: Path, name: str) -> None:
    """Break: one added to the baseline on the way to floats, and not on the way back."""
    wfdb_package()
    if not ECG.is_dir():
        pytest.skip("the recordings are not here")
    source = ECG / f"{name}.hea"
    signal = read(source)
    assert (signal.values.shape, signal.values.dtype, signal.rate) == ((2, 650000), np.int16, 360.0)
    assert (signal.names, signal.units) == (("MLII", "V1"), ("mV", "mV"))
    np.testing.assert_allclose(signal.as_float()[:, 0], [(-167 - 1024) / 200, (-103 - 1024) / 200])
    write(signal.with_float(signal.as_float()), tmp_path / "copy.hea")
    assert (tmp_path / "copy.dat").read_bytes() == source.with_suffix(".dat").read_bytes()
    assert_same(signal, read(tmp_path / "copy.hea"))


def test_a_restored_record_is_clipped_to_its_format_and_never_becomes_a_gap(tmp_path: Path) -> None:
    """Break: the lowest level allowed for samples."""
    told = {"units": ["mV"], "sig_name": ["I"], "adc_gain": [10.0], "baseline": [0]}
    wrsamp(tmp_path, "in", 100, np.array([[5], [6], [7]]), "212", **told)
    signal = read(tmp_path / "in.hea").with_float(np.array([[-1e6, 0.26, np.nan]]))
    write(signal, tmp_path / "in.hea", overwrite=True)
    found = read(tmp_path / "in.hea")
    assert found.values.tolist() == [[-2047, 3, -2048]]
    assert found.missing.tolist() == [[False, False, True]]


def test_packed_samples_are_the_same_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Break: pieces that begin one sample late."""
    values = record(tmp_path, fmt="212", n_samples=101)
    monkeypatch.setattr("unperturb.data.wfdb_record._PIECE", 33)
    np.testing.assert_array_equal(read(tmp_path / "in.hea").values.T, values)


def test_formats_that_cannot_be_written_become_wider(tmp_path: Path) -> None:
    """Break: the gap of the narrow format kept."""
    wfdb_package()
    words = [(1 & 1023) << 1 | (-512 & 1023) << 17, (5 & 1023) << 1]
    (tmp_path / "in.dat").write_bytes(struct.pack("<HHH", words[0] & 65535, words[0] >> 16, words[1]) + b"\0\0")
    (tmp_path / "in.hea").write_text("in 1 100 2\nin.dat 310 10/mV 10 0 0 0 0 I\n")
    signal, copy = again(tmp_path / "in.hea")
    assert signal.values.tolist() == [[1, -512]]
    assert "copy.dat 16 " in copy.read_text()
    assert read(copy).missing.tolist() == [[False, True]]
    np.testing.assert_array_equal(read(copy).as_float(), signal.as_float())


def test_records_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    """Break: the file of samples not looked for."""
    record(tmp_path)
    header, data = (tmp_path / "in.hea").read_text(), (tmp_path / "in.dat").read_bytes()
    for text, said in (
        (header.replace("in.dat 16 ", "in.dat 16x2 "), "several sampling rates"),
        (header.replace(" 16 ", " 77 "), "format 77"),
        (header.replace("in.dat", "other.dat"), "speaks of other.dat"),
        ("in/3 2 250 150\na 50\nb 50\nc 50\n", "3 parts"),
        ("in 0 250 50\n", "without signals"),
        ("Dear Sir or Madam\n", "not the header"),
        ("", "empty"),
    ):
        (tmp_path / "in.hea").write_text(text)
        with pytest.raises(FileError, match=said):
            read(tmp_path / "in.hea")
    (tmp_path / "in.hea").write_text(header)
    (tmp_path / "in.dat").write_bytes(data[:-20])
    with pytest.raises(FileError, match="cut short"):
        read(tmp_path / "in.hea")
    (tmp_path / "in.dat").unlink()
    with pytest.raises(FileError, match=r"speaks of in\.dat"):
        read(tmp_path / "in.hea")
    with pytest.raises(FileError, match=r"name its .hea file"):
        read(tmp_path / "in.dat")


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wfdb", None)
    (tmp_path / "in.hea").write_text("in 1 100 2\n")
    with pytest.raises(UsageError, match=r"unperturb\[signals\]"):
        read(tmp_path / "in.hea")


# All formats


def test_a_signal_can_go_to_another_format(tmp_path: Path) -> None:
    """In its units, with what that format can say. Break: levels written as they are stored."""
    record(tmp_path)
    signal = read(tmp_path / "in.hea")
    for suffix in (".csv", ".tsv", ".npy", ".hea"):
        other = tmp_path / f"other{suffix}"
        write(dataclasses.replace(signal, metadata={}), other)
        found = read(other)
        np.testing.assert_array_equal(found.as_float(), signal.as_float())
        if suffix != ".npy":
            assert (found.rate, found.names, found.units) == (signal.rate, signal.names, signal.units)
    (tmp_path / "in.wav").write_bytes(wav(samples((2, 40)), 2))
    sound, copy = again(tmp_path / "in.wav", ".csv")
    assert (read(copy).rate, read(copy).names) == (8000, ("channel 1", "channel 2"))
    np.testing.assert_array_equal(read(copy).as_float(), sound.as_float())
    write(Signal(samples((1, 9), "int32"), rate=10.0), tmp_path / "out.wav")
    assert read(tmp_path / "out.wav").values.dtype == np.float64
    np.testing.assert_array_equal(read(tmp_path / "out.wav").values, samples((1, 9), "int32"))


@pytest.mark.parametrize("suffix", [".wav", ".npy", ".csv", ".hea"])
def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And never over another one unasked. Break: `whole` given `overwrite=True`; written to the target itself."""
    if suffix == ".hea":
        wfdb_package()
    target = tmp_path / f"out{suffix}"
    signal = Signal(samples((2, 9), "float32"), rate=100.0)
    write(signal, target)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(before) == (2 if suffix == ".hea" else 1)
    other = Signal(samples((2, 9), "float32", 1), rate=100.0)
    with pytest.raises(FileError, match="exists already"):
        write(other, target)
    with monkeypatch.context() as broken:
        broken.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(FileError, match="space"):
            write(other, target, overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    write(other, target, overwrite=True)
    np.testing.assert_array_equal(read(target).as_float(), other.as_float())
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(before)


@pytest.mark.parametrize(
    ("name", "limit"), [("in.wav", 3.0), ("deep.wav", 3.0), ("in.npy", 1.5), ("in.csv", 3.0), ("in.hea", 3.0)]
)
def test_reading_takes_little_more_memory_than_the_samples(tmp_path: Path, name: str, limit: float) -> None:
    """Break: the rows of a CSV file, or the bytes of a WAV file as 64-bit integers, all at once."""
    path = tmp_path / name
    if name.endswith("wav"):
        dtype = "int24" if name == "deep.wav" else "int16"
        path.write_bytes(wav(samples((2, 200_000), dtype), WIDTHS[dtype]))
    elif name == "in.hea":
        record(tmp_path, n_samples=200_000, gaps=False)
    else:
        write(Signal(samples((2, 4_000 if name == "in.csv" else 200_000), "float64")), path)
    size = read(path).values.nbytes  # and all modules are loaded
    tracemalloc.start()
    try:
        read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit * size


def test_files_that_are_not_there_are_told_clearly(tmp_path: Path) -> None:
    (tmp_path / "folder.wav").mkdir()
    for name, said in (("no.wav", "does not exist"), ("folder.wav", "is a folder"), ("x.png", "no suffix")):
        with pytest.raises(FileError, match=said):
            read(tmp_path / name)
    with pytest.raises(FileError, match="no suffix"):
        write(Signal(samples((1, 3))), tmp_path / "out.png")
    with pytest.raises(FileError, match="no name for a WFDB record"):
        write(Signal(samples((1, 3)), rate=1.0), tmp_path / "a b.hea")
    with pytest.raises(FileError, match="does not exist"):
        write(Signal(samples((1, 3)), rate=1.0), tmp_path / "none" / "out.npy")


@pytest.mark.parametrize(
    ("head", "rate"), [("Zeit (s),v\n", 500), ("temps [ms],v\n", 5e5), ("Achse,v\n", None), ("", None)]
)
def test_an_axis_is_carried_whatever_its_name(tmp_path: Path, head: str, rate: float | None) -> None:
    """Its unit may tell the rate. Breaks: a channel like others; only where there is a header; its unit not asked."""
    rows = [(f"{at / 500:.3f}", f"{math.sin(at):.4f}") for at in range(100)]
    path = csv_file(tmp_path, head + "".join(f"{a},{b}\n" for a, b in rows))
    signal = read(path)
    assert (signal.values.shape, signal.rate) == ((1, 100), rate)
    copy = tmp_path / "copy.csv"
    write(signal, copy)
    assert [float(line.split(",")[0]) for line in copy.read_text().splitlines()[bool(head) :]] == [
        float(a) for a, _ in rows
    ]


def test_what_rises_alone_or_has_the_unit_of_times_only_is_a_channel(tmp_path: Path) -> None:
    """Breaks: an axis of nothing; intervals taken for times; the first of several that may be times."""
    ramp = "".join(f"{at / 4}\n" for at in range(100))
    assert read(csv_file(tmp_path, "x\n" + ramp)).names == ("x",)
    rows = "".join(f"{800 + at % 7},{at / 500},{at % 3}.5\n" for at in range(100))
    signal = read(csv_file(tmp_path, "RR (ms),time (s),x\n" + rows))
    assert (signal.names, signal.rate) == (("RR", "x"), 500)
