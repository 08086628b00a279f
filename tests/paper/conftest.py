"""The modules of the paper's experiments, small random models, and runs of experiments."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from tests.paper._data_files import EXPERIMENTS

FOLDER = Path(__file__).parents[2] / "examples" / "paper"

MODULES = ("data", "models", "train", "baselines", "methods", "results", "run")


@pytest.fixture(scope="module")
def paper():
    """Return the modules of the experiments, importable by each other as in a script."""
    torch = pytest.importorskip("torch")
    for name in ("transformers", "PIL.Image"):
        pytest.importorskip(name)
    path, threads = list(sys.path), torch.get_num_threads()
    sys.path.insert(0, str(FOLDER))
    torch.set_num_threads(1)  # more threads slow down models this small
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    finally:
        sys.path[:] = path
        torch.set_num_threads(threads)
        for name in (*MODULES, "_methods", "_record"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Save small random models in the format of the hub; CLIP includes its text model."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        side = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
        side |= {"num_attention_heads": 2, "projection_dim": 8}
        config = transformers.CLIPConfig(
            text_config={**side, "vocab_size": 10, "max_position_embeddings": 8},
            vision_config={**side, "image_size": 32, "patch_size": 16},
            projection_dim=8,
        )
        transformers.CLIPModel(config).save_pretrained(folder / "clip")
        config = transformers.ResNetConfig(
            embedding_size=4, hidden_sizes=[4, 4, 8, 8], depths=[1, 1, 1, 2], layer_type="basic"
        )
        resnet = transformers.ResNetForImageClassification(config)
        for module in resnet.modules():  # trained models have non-trivial statistics
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
                torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
        resnet.save_pretrained(folder / "resnet")
    transformers.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder / "clip")
    # 64 pixels give two by two positions in the last layer.
    transformers.ConvNextImageProcessor(size={"shortest_edge": 64}).save_pretrained(
        folder / "resnet"
    )
    return folder


@pytest.fixture
def run_experiment(paper, weights, tmp_path):
    """Return a function that runs an experiment on a small data set and returns the table."""

    def run(experiment, *options, n=(6,), seeds=(0,), methods=("uniform", "skmm"), out="a.csv"):
        model, write = EXPERIMENTS[experiment]
        directory = tmp_path / experiment
        if not directory.exists():
            write(directory)
        argv = [experiment, "--data", directory, "--model", weights / model]
        argv += ["--out", tmp_path / "out" / out, "--device", "cpu", "--m", 12]
        argv += ["--n", *n, "--seeds", *seeds, "--methods", *methods, *options]
        if experiment != "utkface-probe" and "--epochs" not in options:
            argv += ["--epochs", 3]
        paper.run.main([str(part) for part in argv])
        return pd.read_csv(tmp_path / "out" / out, comment="#")

    return run
