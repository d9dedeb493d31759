"""What a network learns of digits before it is told what any of them is.

Give it the folder with your copy of MNIST: ``python examples/05_layers_before_labels.py FOLDER``, or, with the others,
``make examples MNIST=FOLDER``. The files of ``t10k`` are enough.
"""

import os
import sys
from pathlib import Path

from unperturb.app.lab.stacked import BEGINNINGS, run_stacked

FIGURES = Path(__file__).parent.parent / "docs" / "figures" / "gallery"

source = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("MNIST")
if not source:
    print("skipped: this needs MNIST's files; name their folder, make examples MNIST=FOLDER")
    sys.exit()

# Images are many and labels few. Three layers are trained one on top of the other, each to restore what comes from
# below after a quarter of it was erased; then all of them, with a last one on top, on a hundred labels, on three
# hundred, on a thousand. Beside it the same network with layers that were trained to copy, and with random ones. All
# of it five times, with other random weights and other images that have a label.
told = run_stacked(Path(source), FIGURES, overwrite=True)
print(f"wrong answers in % of {told['tested_on']} digits: mean of {told['seeds']} ± standard error")
for row in told["errors"]:
    parts = (f"{name} {row[name]['error']:5.2f} ± {row[name]['standard_error']:.2f}" for name in BEGINNINGS)
    print(f"{row['labels']:5} labels:", ", ".join(parts))
