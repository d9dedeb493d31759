"""Raw files of cameras, read as the photograph that they become: demosaicked, 16 bit, colours and curve of sRGB.

The package ``rawpy`` (extra ``raw``) develops them with the white balance of the shot, and does nothing else to them:
no brightening, no noise reduction, no sharpening. There is no way back, so that results are TIFF files; camera data is
not carried over.
"""

from pathlib import Path
from typing import Any

import numpy as np

from unperturb.data.opening import first_bytes
from unperturb.data.recording import Recording
from unperturb.errors import FileError, UsageError


def read(path: Path) -> Recording:
    """Develop a raw file.

    Raises
    ------
    UsageError
        Where the package ``rawpy`` is not installed.
    FileError
        Where the file cannot be developed.
    """
    first_bytes(path, "a raw file")
    rawpy = _rawpy()
    try:
        with rawpy.imread(str(path)) as raw:
            values = raw.postprocess(
                output_bps=16, use_camera_wb=True, no_auto_bright=True, output_color=rawpy.ColorSpace.sRGB,
                gamma=(2.4, 12.92),
            )  # fmt: skip
    except rawpy.LibRawError as error:
        reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise FileError(f"{path} cannot be developed ({reason}); save it as TIFF in a raw converter") from error
    return Recording(np.ascontiguousarray(values), "YXC", "tiff")


def _rawpy() -> Any:
    try:
        import rawpy
    except ImportError:
        raise UsageError("raw files need rawpy, which comes with an extra: pip install 'unperturb[raw]'") from None
    return rawpy
