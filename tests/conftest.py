"""What several test files need."""

import sys

import pytest
import torch

from unperturb.app.cli import main
from unperturb.model.card import Card
from unperturb.model.checkpoint import save_model
from unperturb.model.denoiser import Denoiser
from unperturb.model.network import UNetSettings


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """Write a small model, so that these tests are about files and words, and not about quality."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save_model(Denoiser(Card(UNetSettings(channels=3, widths=(8, 16), blocks=1), name="small")), path)
    return str(path)


@pytest.fixture
def one_thread():
    """Compute on one thread: small arrays gain nothing from more, which wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run(capsys):
    """Run the command line in this process; returns exit code, standard output and standard error."""

    def call(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
            sys.exit(0)
        told = capsys.readouterr()
        return stopped.value.code or 0, told.out, told.err

    return call
