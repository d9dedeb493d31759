"""The lab's comparison of analyses of a table with missing cells."""

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pd = pytest.importorskip("pandas")

from unperturb.app import estimator  # noqa: E402
from unperturb.app.lab.imputed import MANY, ONCE, WHOLE, analyse, draw_picture  # noqa: E402
from unperturb.train.rows import RowTraining  # noqa: E402


@pytest.fixture(scope="module")
def found():
    """Analyse an outcome that rises with one number alone; of the other, most is missing where the outcome is low."""
    generator = np.random.default_rng(0)
    rises, other = generator.standard_normal((2, 300))
    outcome = rises + 0.5 * generator.standard_normal(300)
    other = 0.8 * rises + 0.6 * other
    gone = (generator.random(300) < 0.8) & (outcome < 0)
    frame = pd.DataFrame({"outcome": outcome, "rises": rises, "other": np.where(gone, np.nan, other)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimator, "RowTraining", lambda: RowTraining(least=200, most=200))
        return analyse(frame, "outcome", ["rises", "other"], "other", tables=10)


def test_the_three_ways(found):
    """Break: the ends of the intervals turned around."""
    assert found.rows[WHOLE] < 200 < found.rows[ONCE] == found.rows[MANY] == 300
    estimate, low, high = found.coefficients[MANY]
    assert (low < estimate).all()
    assert (estimate < high).all()
    assert low[0] < 1 < high[0]
    assert low[1] < 0 < high[1]
    assert 0 < found.lost[0] < found.lost[1] < 1


def test_filled_in_once_varies_too_little(found):
    name, observed, once, draw = found.watched
    assert name == "other"
    assert len(once) == len(draw) == 300 - len(observed)
    assert once.std() < 0.9 * draw.std()


def test_the_picture_is_made(found, tmp_path):
    draw_picture(found, tmp_path / "analyses.png", "coefficients")
    assert (tmp_path / "analyses.png").read_bytes()[:4] == b"\x89PNG"
