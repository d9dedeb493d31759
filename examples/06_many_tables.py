"""One question to a table with missing cells: whole rows alone, filled in once, filled in many times.

Give it your copy of the UCI "Horse Colic" data: ``python examples/06_many_tables.py horse-colic.csv``, or, with the
others, ``make examples COLIC=horse-colic.csv``.
"""

import os
import sys
from pathlib import Path

import pandas as pd

from unperturb.app.lab.imputed import analyse, draw_picture

FIGURES = Path(__file__).parent.parent / "docs" / "figures" / "gallery"
NUMBERS = {3: "temperature", 4: "pulse", 5: "respiration", 15: "reflux_ph", 18: "packed_cells", 19: "protein",
           21: "abdominal_protein"}  # fmt: skip
CODES = {0: "surgery", 1: "age", 6: "extremities", 7: "peripheral_pulse", 8: "membranes", 9: "capillaries", 10: "pain",
         11: "peristalsis", 12: "distension", 13: "tube", 14: "reflux", 16: "faeces", 17: "abdomen",
         20: "abdominal_fluid", 22: "outcome", 23: "lesion"}  # fmt: skip

source = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("COLIC")
if not source:
    print("skipped: this needs the Horse Colic table; name the file, make examples COLIC=FILE")
    sys.exit()

# Of 300 horses with colic that were brought to a clinic, what was noted down, and whether they lived. A quarter of all
# cells is missing: who examines a horse in pain at night leaves out what he can. Only a handful of rows is whole.
raw = pd.read_csv(source, header=None, na_values="?")
frame = raw[[*NUMBERS]].rename(columns=NUMBERS).astype(float)
frame = frame.join(raw[[*CODES]].rename(columns=CODES).astype("category"))
frame["died"] = (frame.pop("outcome").astype(float) > 1).where(raw[22].notna()).astype(float)
print(f"{frame.isna().to_numpy().mean():.0%} of {frame.shape[0]} x {frame.shape[1]} cells are missing,", end=" ")
print(f"{len(frame.dropna())} rows are whole")

# How much likelier does a horse die, if one of these is a standard deviation higher and the others are what they are?
# The last one was noted down for a third of the horses only.
asked = ["pulse", "temperature", "packed_cells", "protein", "abdominal_protein"]
found = analyse(frame, "died", asked, "abdominal_protein")
for way, (estimate, low, high) in found.coefficients.items():
    print(f"{way} ({found.rows[way]} rows)")
    for name, *three in zip(found.predictors, estimate, low, high, strict=True):
        print("   {:20} {:+.3f}   from {:+.3f} to {:+.3f}".format(name, *three))
lost = ", ".join(f"{name} {share:.0%}" for name, share in zip(asked, found.lost, strict=True))
print(f"lost by what is missing: {lost}")
draw_picture(found, FIGURES / "colic.png", "chance to die, for each standard deviation more")
