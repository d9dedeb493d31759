"""Model files: safetensors weights with the card as JSON in their header. Nothing is ever unpickled.

Weights are stored in half precision where that is said: the file is half as large, and a denoiser's answers move by
less than a thousandth of a grey level.
"""

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from unperturb.atomic import whole
from unperturb.errors import ModelError
from unperturb.model.card import Card
from unperturb.model.denoiser import Denoiser

FORMAT = "unperturb-model-1"


def bundled() -> list[str]:
    """Return the names of the models that come with the package."""
    folder = resources.files("unperturb.model") / "bundled"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".safetensors"))


def load(name: str | Path) -> Denoiser:
    """Load a model, ready to restore: on the processor, in float32, not training.

    Parameters
    ----------
    name
        The name of a bundled model, or the path of a model file.

    Raises
    ------
    ModelError
        Where there is no such model, or the file is not one.
    """
    path = Path(name)
    if str(name) in bundled():
        path = Path(str(resources.files("unperturb.model") / "bundled" / f"{name}.safetensors"))
    elif not path.is_file():
        known = ", ".join(bundled()) or "none"
        raise ModelError(f"there is no model {str(name)!r}: give the path of a model file, or a bundled name ({known})")
    tensors, header = read_tensors(path, FORMAT)
    try:
        card = Card.from_dict(json.loads(header["card"]))
    except (KeyError, ValueError):
        raise ModelError(f"{path} holds no card that can be read; it may be damaged") from None
    denoiser = Denoiser(card)
    fill(denoiser.network, tensors, path)
    return denoiser.eval().requires_grad_(False)


def save_model(denoiser: Denoiser, path: str | Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write a model file, whole or not at all, in place of what may be there.

    Parameters
    ----------
    denoiser
        The model; its card goes with it.
    path
        Where to; the folder has to exist.
    dtype
        How weights are stored.

    Raises
    ------
    FileError
        Where it cannot be written.
    """
    tensors = {key: value.detach().to(dtype).cpu().contiguous() for key, value in denoiser.network.state_dict().items()}
    write_tensors(path, FORMAT, tensors, {"card": json.dumps(denoiser.card.as_dict())})


def fill(module: torch.nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Put stored weights into a module.

    Raises
    ------
    ModelError
        Where they are not this module's weights.
    """
    try:
        module.load_state_dict({key: value.float() for key, value in tensors.items()})
    except RuntimeError as error:
        raise ModelError(f"{path} does not hold the weights that its card describes: {error}") from None


def read_tensors(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file of the stated kind: its tensors, and the texts in its header.

    Raises
    ------
    ModelError
        Where the file cannot be read or is of another kind.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            header = dict(file.metadata() or {})
            if header.get("format") != kind:
                raise ModelError(f"{path} is a safetensors file, but not of the kind {kind}")
            return {key: file.get_tensor(key) for key in file.keys()}, header  # noqa: SIM118 (it is no mapping)
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist; check the path.") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a model file, or it is damaged ({error})") from None


def write_tensors(path: str | Path, kind: str, tensors: Mapping[str, Tensor], texts: Mapping[str, Any]) -> None:
    """Write a safetensors file, whole or not at all.

    Raises
    ------
    FileError
        Where it cannot be written.
    """
    with whole(path, overwrite=True) as part:
        part.write_bytes(save(dict(tensors), {"format": kind, **texts}))
