"""The paper's experiments on small images in the real file formats, and small random models."""

import importlib
import os
import pickle
import re
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat
from scipy.special import log_softmax, rel_entr

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
Image = pytest.importorskip("PIL.Image")

pytestmark = pytest.mark.slow  # of an example, not of the package

FOLDER = Path(__file__).parents[1] / "examples" / "paper"
MODULES = ("data", "models", "train", "baselines", "methods", "results", "run")
SECONDS = ["select_seconds", "train_seconds"]


@pytest.fixture(scope="module")
def paper():
    """The modules of the experiments, which find each other as those of a script do."""
    path, threads = list(sys.path), torch.get_num_threads()
    sys.path.insert(0, str(FOLDER))
    torch.set_num_threads(1)  # threads cost more than they gain on models this small
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    finally:
        sys.path[:] = path
        torch.set_num_threads(threads)
        for name in (*MODULES, "_methods", "_record"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Small models, saved as those on the hub are: CLIP with its text side."""
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
        for module in resnet.modules():  # as after training, so that no statistic is trivial
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
                torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
        resnet.save_pretrained(folder / "resnet")
    transformers.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder / "clip")
    # 64 pixels: two by two of the last layer's.
    transformers.ConvNextImageProcessor(size={"shortest_edge": 64}).save_pretrained(
        folder / "resnet"
    )
    return folder


def picture(label, rng):
    """Noise around a colour of the class, wider than high."""
    colour = np.random.RandomState(label).uniform(60, 200, 3)
    return np.clip(colour + rng.normal(scale=20, size=(36, 48, 3)), 0, 255).astype(np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95, subsampling=0)


def annotations(**fields):
    """An array of structures, as MATLAB writes them."""
    columns = list(zip(*fields.values(), strict=True))
    records = np.empty((1, len(columns)), dtype=[(name, object) for name in fields])
    records[0] = columns
    return records


def write_devkit(directory, labels, test_labels):
    rng = np.random.RandomState(0)
    for split, classes, name in (
        ("cars_train", labels, "devkit/cars_train_annos.mat"),
        ("cars_test", test_labels, "cars_test_annos_withlabels.mat"),
    ):
        names = [f"{i + 1:05d}.jpg" for i in range(len(classes))]
        for file, label in zip(names, classes, strict=True):
            save(directory / split / file, picture(label, rng))
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        boxes = {f"bbox_{key}": [1] * len(names) for key in ("x1", "y1", "x2", "y2")}
        records = annotations(**boxes, **{"class": [c + 1 for c in classes]}, fname=names)
        savemat(directory / name, {"annotations": records})


def write_all_annotations(directory, labels, test_labels):
    rng = np.random.RandomState(0)
    classes = [*labels, *test_labels]
    names = [f"car_ims/{i + 1:06d}.jpg" for i in range(len(classes))]
    for name, label in zip(names, classes, strict=True):
        save(directory / name, picture(label, rng))
    records = annotations(
        relative_im_path=names,
        bbox_x1=[1] * len(names),
        **{"class": [c + 1 for c in classes]},
        test=[0] * len(labels) + [1] * len(test_labels),
    )
    savemat(directory / "cars_annos.mat", {"annotations": records, "class_names": ["a", "b"]})


def write_tree(directory, labels, test_labels):
    rng = np.random.RandomState(0)
    for split, classes in (("train", labels), ("test", test_labels)):
        for i, label in enumerate(classes):
            save(directory / split / f"Car {label}" / f"{i:03d}.jpg", picture(label, rng))


CARS = {"devkit": write_devkit, "all": write_all_annotations, "tree": write_tree}


def python_2_batch(pixels, labels):
    """The bytes of a batch as Python 2 pickled it, where strings are bytes."""

    def string(text):
        return b"T" + struct.pack("<i", len(text)) + text

    def number(value):
        return b"J" + struct.pack("<i", value)

    kind = b"cnumpy\ndtype\n" + string(b"u1") + b"K\x00K\x01\x87R"
    kind += b"(K\x03" + string(b"|") + b"NNN" + number(-1) + number(-1) + b"K\x00tb"
    shape = number(pixels.shape[0]) + number(pixels.shape[1]) + b"\x86"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + string(b"b")
    array += b"tR(K\x01" + shape + kind + b"\x89" + string(pixels.tobytes()) + b"tb"
    classes = b"](" + b"".join(number(int(label)) for label in labels) + b"e"
    items = (string(b"data"), array, string(b"labels"), classes)
    return b"\x80\x02}(" + string(b"batch_label") + string(b"1 of 5") + b"".join(items) + b"u."


def cifar_pixels(labels, rng):
    images = np.stack([picture(label, rng)[:32, :32] for label in labels])
    return images, images.transpose(0, 3, 1, 2).reshape(len(labels), -1)


def write_cifar10(directory):
    """Write the batches and return the training images."""
    rng = np.random.RandomState(0)
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        labels = np.arange(6) % 3
        images, rows = cifar_pixels(labels, rng)
        written.append(images)
        (directory / name).write_bytes(python_2_batch(rows, labels))
    return np.concatenate(written[:5])


def write_utkface(directory, ages):
    rng = np.random.RandomState(0)
    for i, age in enumerate(ages):
        suffix = ".jpg.chip.jpg" if i % 2 else ".jpg"
        name = f"{age}_{i % 2}_{i % 5}_20170109{i:09d}{suffix}"
        save(directory / f"part{i % 3}" / name, picture(age // 10, rng))


LABELS, TEST_LABELS = [0, 1, 2] * 8, [0, 1, 2] * 2
AGES = [1 + 7 * i % 90 for i in range(40)]
EXPERIMENTS = {
    "cars-probe": ("clip", lambda d: write_devkit(d, LABELS, TEST_LABELS)),
    "cars-finetune": ("resnet", lambda d: write_tree(d, LABELS, TEST_LABELS)),
    "cifar10-finetune": ("resnet", lambda d: write_cifar10(d / "cifar-10-batches-py")),
    "utkface-probe": ("clip", lambda d: write_utkface(d, AGES)),
}


@pytest.fixture
def start(paper, weights, tmp_path):
    """Run an experiment on its small data set, and return the table."""

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


# ---- loaders ------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", CARS)
def test_cars_are_as_written(paper, tmp_path, format_):
    CARS[format_](tmp_path, [2, 0, 1, 2], [1, 0, 2])
    train, test = paper.data.load("cars", tmp_path)
    assert sorted(train.labels) == [0, 1, 2, 2]
    assert sorted(test.labels) == [0, 1, 2]
    if format_ != "tree":  # which is in the order of the classes
        np.testing.assert_array_equal(train.labels, [2, 0, 1, 2])
    rng = np.random.RandomState(0)
    for label in (2, 0, 1, 2):
        wanted = picture(label, rng)
        distances = [np.abs(np.asarray(image, int) - wanted).mean() for image in train]
        closest = int(np.argmin(distances))
        assert distances[closest] < 8  # JPEG
        assert train.labels[closest] == label


def test_cifar10_is_as_written(paper, tmp_path):
    images = write_cifar10(tmp_path)
    train, test = paper.data.load("cifar10", tmp_path)
    assert (len(train), len(test)) == (30, 6)
    np.testing.assert_array_equal(train.labels, np.tile(np.arange(6) % 3, 5))
    np.testing.assert_array_equal(np.stack([np.asarray(image) for image in train]), images)


def test_cifar10_as_python_3_and_numpy_2_pickle_it(paper, tmp_path):
    write_cifar10(tmp_path)
    before, _ = paper.data.load("cifar10", tmp_path)
    _, rows = cifar_pixels(np.arange(6) % 3, np.random.RandomState(0))
    batch = {b"data": rows, b"labels": [0, 1, 2, 0, 1, 2], b"batch_label": b"1 of 5"}
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(batch, protocol=2))
    after, _ = paper.data.load("cifar10", tmp_path)
    np.testing.assert_array_equal(np.asarray(after[3]), np.asarray(before[3]))


class Malicious:
    """Pickled, it makes a directory when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_no_code_in_a_pickle_runs(paper, tmp_path):
    write_cifar10(tmp_path)
    trap = tmp_path / "trap"
    content = pickle.dumps({b"data": Malicious(trap), b"labels": [0]}, protocol=2)
    pickle.loads(content)  # it works where nothing is done about it
    assert trap.exists()
    trap.rmdir()
    (tmp_path / "data_batch_3").write_bytes(content)
    with pytest.raises(SystemExit, match=r"data_batch_3 is no batch .*mkdir is not allowed"):
        paper.data.load("cifar10", tmp_path)
    assert not trap.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cposix\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy\nndarray.tofile\n.",
        b"c_codecs\nencode\n(Vabc\nVrot13\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(K\x00tS'b'\ntR.",
        b"no pickle",
        b"",
    ],
)
def test_what_is_no_array_is_refused(paper, tmp_path, content):
    write_cifar10(tmp_path)
    (tmp_path / "test_batch").write_bytes(content)
    with pytest.raises(SystemExit, match="test_batch is no batch of CIFAR-10"):
        paper.data.load("cifar10", tmp_path)


def test_utkface_is_as_written(paper, tmp_path, capsys):
    write_utkface(tmp_path, AGES)
    save(tmp_path / "39_1_20170116174525125.jpg", picture(0, np.random.RandomState(0)))
    train, test = paper.data.load("utkface", tmp_path)
    assert "1 files" in capsys.readouterr().out
    assert (len(train), len(test)) == (36, 4)
    assert sorted([*train.labels, *test.labels]) == sorted(AGES)
    for images in (train, test):
        for name, age in zip(images.names, images.labels, strict=True):
            assert int(name.split("/")[-1].split("_")[0]) == age
    again, _ = paper.data.load("utkface", tmp_path)
    assert again.names == train.names


def test_only_what_pictures_are_said_to_be_is_opened(paper, tmp_path):
    write_utkface(tmp_path, AGES)
    train, _ = paper.data.load("utkface", tmp_path)
    first = tmp_path / train.names[0].split(" ")[0]
    image = train[0]
    image.save(first, format="BMP")
    with pytest.raises(Image.UnidentifiedImageError):
        train[0]


@pytest.mark.parametrize("name", ["cars", "cifar10", "utkface"])
def test_a_wrong_directory_is_named(paper, tmp_path, name):
    save(tmp_path / "holiday.jpg", picture(0, np.random.RandomState(0)))
    with pytest.raises(SystemExit, match=re.escape(f"{tmp_path} is not")):
        paper.data.load(name, tmp_path)
    with pytest.raises(SystemExit, match="no such directory"):
        paper.data.load(name, tmp_path / "absent")


def test_what_is_missing_of_cars_is_named(paper, tmp_path):
    write_devkit(tmp_path, [0, 1], [1])
    (tmp_path / "cars_train" / "00002.jpg").unlink()
    with pytest.raises(SystemExit, match=r"1 of 2 images are missing.*00002\.jpg"):
        paper.data.load("cars", tmp_path)
    (tmp_path / "cars_test_annos_withlabels.mat").unlink()
    with pytest.raises(SystemExit, match="cars_test_annos_withlabels"):
        paper.data.load("cars", tmp_path)
    write_tree(tmp_path / "tree", [0, 1], [1])
    with pytest.raises(SystemExit, match="2 folders in train and 1 in test"):
        paper.data.load("cars", tmp_path / "tree")


def test_a_mirror_is_read_as_datasets_does(paper, tmp_path):
    datasets = pytest.importorskip("datasets")
    rng = np.random.RandomState(0)
    pixels = [picture(label, rng) for label in (1, 0, 2)]
    columns = {"img": [Image.fromarray(p) for p in pixels], "label": [1, 0, 2]}
    features = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])}
    )
    for folder in ("complete", "unlabelled"):
        (tmp_path / folder).mkdir()
        for split in ("train", "test"):
            part = datasets.Dataset.from_dict(columns, features=features)
            part.to_parquet(str(tmp_path / folder / f"{split}.parquet"))
        columns["label"] = [-1, -1, -1]  # of the second folder
    train, test = paper.data.load("cifar10", f"hub:{tmp_path / 'complete'}")
    np.testing.assert_array_equal(train.labels, [1, 0, 2])
    np.testing.assert_array_equal(np.asarray(test[2]), pixels[2])
    with pytest.raises(SystemExit, match="without a label"):
        paper.data.load("cifar10", f"hub:{tmp_path / 'unlabelled'}")


# ---- models -------------------------------------------------------------------------------------


def test_trunk_and_tail_are_the_model(paper, weights):
    pretrained = paper.models.resnet(weights / "resnet")
    model = transformers.ResNetForImageClassification.from_pretrained(weights / "resnet").eval()
    tail = pretrained.make_tail(model.config.num_labels, 0).eval()
    tail.head.load_state_dict(model.classifier[-1].state_dict())
    pixels = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted, found = model(pixels).logits, tail(pretrained.trunk(pixels))
    torch.testing.assert_close(found, wanted)


def test_only_the_last_two_layers_are_trained(paper, weights):
    pretrained = paper.models.resnet(weights / "resnet")
    tail, before = pretrained.make_tail(3, 0), pretrained.make_tail(3, 0)
    rng = np.random.RandomState(0)
    X = rng.uniform(size=(20, 2, 8, 2, 2)).astype(np.float16)
    recipe = paper.train.Recipe(lr=0.01, epochs=2)
    paper.train.fit(tail, X, rng.randint(3, size=20), recipe=recipe, seed=0, device="cpu")
    changed = {
        name
        for (name, new), old in zip(tail.named_parameters(), before.parameters(), strict=True)
        if not torch.equal(new, old)
    }
    assert changed == {"convolution.weight", "head.weight", "head.bias"}
    assert not tail.training


def test_a_tail_depends_on_its_seed_alone(paper, weights):
    pretrained = paper.models.clip(weights / "clip")
    state = torch.random.get_rng_state()
    first, again, other = (pretrained.make_tail(3, seed) for seed in (0, 0, 1))
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    assert torch.equal(state, torch.random.get_rng_state())


def test_features_are_computed_once(paper, weights, tmp_path, monkeypatch):
    write_tree(tmp_path, [0, 1, 2], [0, 1, 2])
    train, test = paper.data.load("cars", tmp_path)
    pretrained = paper.models.clip(weights / "clip")
    calls = []
    compute = paper.models._compute

    def counted(*args):
        calls.append(args)
        compute(*args)

    monkeypatch.setattr(paper.models, "_compute", counted)
    folder = tmp_path / "features"
    first = paper.models.features(pretrained, train, folder, device="cpu", batch_size=2)
    again = paper.models.features(pretrained, train, folder, device="cpu", batch_size=3)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, rtol=1e-5)
    assert len(calls) == 1
    paper.models.features(pretrained, test, folder, device="cpu")
    with torch.no_grad():  # other weights are another file
        next(pretrained.trunk.parameters()).add_(0.1)
    paper.models.features(pretrained, train, folder, device="cpu")
    assert len(calls) == 3


def test_half_computed_features_are_not_taken(paper, weights, tmp_path, monkeypatch):
    write_tree(tmp_path, [0, 1, 2], [0, 1, 2])
    train, _ = paper.data.load("cars", tmp_path)
    pretrained = paper.models.clip(weights / "clip")
    opened, calls = train.open, []

    def breaks(i):
        calls.append(i)
        if len(calls) == 3:
            raise OSError("the disk is gone")
        return opened(i)

    train.open = breaks
    folder = tmp_path / "features"
    with pytest.raises(OSError, match="disk"):
        paper.models.features(pretrained, train, folder, device="cpu", batch_size=1)
    assert list(folder.iterdir()) == []
    assert paper.models.features(pretrained, train, folder, device="cpu").shape == (3, 8)


# ---- baselines ----------------------------------------------------------------------------------


def test_all_methods_of_the_papers_tables_are_there(paper):
    wanted = {"uniform", "herding", "contextual-diversity", "glister", "gradnorm", "forgetting"}
    wanted |= {"deepfool", "entropy", "margin", "least-confidence", "skmm-paper"}
    assert wanted <= set(paper.methods.CLASSIFICATION)


def test_equal_scores_are_drawn_from(paper):
    scores = np.array([0.0, 2.0, 1.0, 1.0, 1.0, 1.0])
    draws = [paper.baselines.highest(scores, 3, seed) for seed in range(60)]
    assert all(draw[0] == 1 for draw in draws)
    assert set(np.ravel([draw[1:] for draw in draws])) == {2, 3, 4, 5}
    np.testing.assert_array_equal(draws[7], paper.baselines.highest(scores, 3, 7))


def test_forgetting_is_counted_by_hand(paper):
    histories = {"11111": 0, "00111": 0, "10101": 2, "01100": 1, "10000": 1, "00000": np.inf}
    correct = np.array([[digit == "1" for digit in history] for history in histories]).T
    np.testing.assert_array_equal(paper.baselines.forgetting(correct), list(histories.values()))


def test_what_is_forgotten_is_watched_before_the_step(paper):
    """With one batch an epoch, what is watched is what the tail of one epoch less predicts."""
    rng = np.random.RandomState(0)
    X, y = rng.normal(size=(20, 4)).astype(np.float32), rng.randint(3, size=20)
    seen = []

    def tail(epochs, **kwargs):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layer = torch.nn.Linear(4, 3)
        recipe = paper.train.Recipe(lr=0.1, epochs=epochs)
        return paper.train.fit(layer, X, y, recipe=recipe, seed=0, device="cpu", **kwargs)

    tail(4, watch=lambda epoch, batch, output: seen.append((epoch, batch, output)))
    for epochs, (epoch, batch, output) in enumerate(seen):
        assert epoch == epochs
        np.testing.assert_array_equal(batch, np.arange(20))
        wanted = paper.train.predict(tail(epochs), X, device="cpu")
        np.testing.assert_allclose(output, wanted, rtol=1e-5, atol=1e-6)


def test_contextual_diversity_is_the_farthest_first(paper):
    rng = np.random.RandomState(0)
    p = rng.dirichlet(np.full(4, 0.3), size=30) + 1e-6
    p /= p.sum(axis=1, keepdims=True)
    distances = rel_entr(p[:, None], p).sum(axis=2) + rel_entr(p, p[:, None]).sum(axis=2)
    picks = paper.baselines.contextual_diversity(np.log(p), 12, seed=3)
    assert len(set(picks)) == 12
    for t in range(1, 12):
        to_nearest = distances[:, picks[:t]].min(axis=1)
        assert picks[t] == np.argmax(to_nearest)


def test_contextual_diversity_knows_certain_predictions(paper):
    """Probabilities that are zero in single precision are told apart by their logarithms."""
    log_p = log_softmax(np.float32([[0, 300], [0, 200], [300, 0], [0, 299]]), axis=1)
    for seed in range(4):
        picks = paper.baselines.contextual_diversity(log_p, 3, seed)
        assert len(set(picks)) == 3
        assert 2 in picks


@pytest.mark.parametrize("rounds", [1, 3, 6])
def test_glister_takes_the_steps_that_help_most(paper, rounds):
    """Gains are the slopes of the loss of all samples, by autograd."""
    rng = np.random.RandomState(0)
    inputs, y, n, eta = rng.normal(size=(25, 4)), rng.randint(3, size=25), 6, 2.0
    weight = torch.from_numpy(rng.normal(size=(3, 5)))
    X, targets = torch.from_numpy(np.column_stack([inputs, np.ones(25)])), torch.from_numpy(y)

    def gradient(weight, rows):
        weight = weight.clone().requires_grad_(True)
        loss = torch.nn.functional.cross_entropy(X[rows] @ weight.T, targets[rows])
        return torch.autograd.grad(loss, weight)[0]

    wanted = []
    for _ in range(rounds):
        moved = weight - eta * gradient(weight, wanted) if wanted else weight
        validation = gradient(moved, slice(None))
        gains = [float((gradient(weight, [i]) * validation).sum()) for i in range(25)]
        order = [i for i in np.argsort(gains)[::-1] if i not in wanted]
        wanted += order[: n // rounds]
    output = (X @ weight.T).numpy()
    found = paper.baselines.glister(inputs, output, y, n, eta=eta, rounds=rounds)
    np.testing.assert_array_equal(found, wanted)


def test_glister_lowers_the_loss_more_than_a_draw(paper):
    rng = np.random.RandomState(0)
    y = rng.randint(3, size=200)
    inputs = rng.normal(size=(200, 5)) + 2 * np.eye(3, 5)[y]
    noisy = np.where(rng.uniform(size=200) < 0.3, rng.randint(3, size=200), y)  # wrong labels

    def loss_after(picks):
        X = np.column_stack([inputs, np.ones(200)])
        step = (np.full((200, 3), 1 / 3) - np.eye(3)[noisy])[picks].T @ X[picks] / len(picks)
        return -log_softmax(-X @ step.T, axis=1)[np.arange(200), noisy].mean()

    picks = paper.baselines.glister(inputs, np.zeros((200, 3)), noisy, 20, eta=1.0)
    draws = [loss_after(np.random.RandomState(seed).choice(200, 20)) for seed in range(20)]
    assert loss_after(picks) < min(draws)


def test_deepfool_of_a_linear_tail_is_the_distance_to_the_boundary(paper):
    rng = np.random.RandomState(0)
    X = rng.normal(size=(130, 4)).astype(np.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tail = torch.nn.Linear(4, 5)
    weight, output = tail.weight.detach().numpy(), paper.train.predict(tail, X, device="cpu")
    wanted = np.full(130, np.inf)
    for i, scores in enumerate(output):
        best = scores.argmax()
        for k in set(range(5)) - {best}:
            distance = (scores[best] - scores[k]) / np.linalg.norm(weight[best] - weight[k])
            wanted[i] = min(wanted[i], distance)
    found = paper.baselines.deepfool(tail, X, device="cpu")
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


class Ring(torch.nn.Module):
    """Two classes, within and without a circle of radius one."""

    def forward(self, x):
        return torch.stack([x.square().sum(dim=1), torch.ones(len(x))], dim=1)


def test_deepfool_finds_a_curved_boundary(paper):
    """From without, the first step of several falls short of it by far."""
    radius = np.array([0.95, 1.1, 2.0, 4.0, 9.0], dtype=np.float32)
    X = radius[:, None] * np.float32([0.6, 0.8])
    found = paper.baselines.deepfool(Ring(), X, device="cpu")
    # It overshoots by two per cent, and may end within that of the circle.
    np.testing.assert_allclose(found, np.abs(radius - 1), rtol=0.05, atol=0.02)


def test_deepfool_leaves_alone_what_cannot_move(paper):
    """Where no slope leads anywhere, the distance is zero or finite, and no number is lost."""
    tail = torch.nn.Linear(3, 2)
    with torch.no_grad():
        tail.weight.zero_()
        tail.bias.copy_(torch.tensor([1.0, 0.0]))
    found = paper.baselines.deepfool(tail, np.zeros((4, 3), np.float32), device="cpu")
    assert np.isfinite(found).all()


def test_last_inputs_are_what_the_last_layer_sees(paper, weights):
    X = np.random.RandomState(0).uniform(size=(7, 2, 8, 2, 2)).astype(np.float16)
    tail = paper.models.resnet(weights / "resnet").make_tail(3, 0)
    inputs = paper.train.last_inputs(tail, X, device="cpu")
    assert inputs.shape == (7, 8)
    head = tail.head
    output = inputs @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    np.testing.assert_allclose(output, paper.train.predict(tail, X, device="cpu"), rtol=1e-5)
    assert not head._forward_pre_hooks


# ---- the experiments ----------------------------------------------------------------------------


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_runs(start, experiment):
    table = start(experiment)
    assert list(table["method"]) == ["uniform", "skmm"]
    if experiment == "utkface-probe":
        assert table["mae"].between(0, 90).all()
        assert table["accuracy"].isna().all()
    else:
        assert table["accuracy"].between(0, 100).all()
        assert table["macro_f1"].between(0, 100).all()
        assert table["mae"].isna().all()


def test_a_probe_learns(start):
    table = start("cars-probe", "--epochs", 100, n=(18,))
    assert (table["accuracy"] > 80).all()


@pytest.mark.parametrize("experiment", ["cars-finetune", "utkface-probe"])
def test_every_method_runs(paper, start, experiment):
    regression = experiment == "utkface-probe"
    methods = paper.methods.REGRESSION if regression else paper.methods.CLASSIFICATION
    table = start(experiment, methods=methods)
    assert list(table["method"]) == list(methods)


@pytest.mark.parametrize("target", ["output", "random"])
def test_what_is_trained_on_is_what_was_selected(paper, start, monkeypatch, target):
    selected, trained = [], []
    select, fit = paper.methods.select, paper.train.fit

    def kept(method, n, candidates):
        indices = select(method, n, candidates)
        selected.append((candidates.X, candidates.y, indices))
        return indices

    def fitted(tail, X, y, **kwargs):
        trained.append((np.array(X), np.array(y)))
        return fit(tail, X, y, **kwargs)

    monkeypatch.setattr(paper.methods, "select", kept)
    monkeypatch.setattr(paper.train, "fit", fitted)
    methods = ("k-center", "skmm-paper", "skmm")
    start("cars-finetune", "--target", target, n=(5, 8), methods=methods)
    assert len(selected) == len(trained) == 6
    for (X, y, indices), (X_fit, y_fit) in zip(selected, trained, strict=True):
        assert len(set(indices)) == len(indices) == len(y_fit)
        np.testing.assert_array_equal(X_fit, X[np.sort(indices)])
        np.testing.assert_array_equal(y_fit, y[np.sort(indices)])


def test_methods_without_labels_see_none(paper, weights, tmp_path):
    X = np.random.RandomState(0).normal(size=(30, 8)).astype(np.float32)
    make_tail = paper.models.clip(weights / "clip").make_tail

    def picks(y):
        candidates = paper.methods.Candidates(
            X,
            y,
            lambda seed: make_tail(3, seed),
            recipe=paper.train.Recipe(0.1, 1),
            m=6,
            target="output",
            seed=0,
            device="cpu",
        )
        return {
            name: paper.methods.select(name, 5, candidates) for name in paper.methods.LABEL_FREE
        }

    zeros, ones = picks(np.zeros(30, int)), picks(np.ones(30, int))
    for name, indices in zeros.items():
        np.testing.assert_array_equal(indices, ones[name])


# ---- the table ----------------------------------------------------------------------------------


def test_an_interrupted_run_goes_on(paper, start, monkeypatch, tmp_path):
    work = {"n": (6, 9), "seeds": (0, 1), "methods": ("uniform", "skmm", "entropy")}
    whole = start("cars-probe", **work, out="whole.csv")
    fit, fits = paper.train.fit, []

    def interrupted(tail, X, y, **kwargs):
        if len(y) < 24:  # not the pilot
            fits.append(len(y))
            if len(fits) == 6:
                raise KeyboardInterrupt
        return fit(tail, X, y, **kwargs)

    def never(*args):
        raise AssertionError("features were computed a second time")

    monkeypatch.setattr(paper.train, "fit", interrupted)
    monkeypatch.setattr(paper.models, "_compute", never)
    with pytest.raises(KeyboardInterrupt):
        start("cars-probe", **work, out="parts.csv")
    assert len(pd.read_csv(tmp_path / "out" / "parts.csv", comment="#")) == 5
    parts = start("cars-probe", **work, out="parts.csv")
    assert len(fits) == 6 + 12 - 5
    pd.testing.assert_frame_equal(parts.drop(columns=SECONDS), whole.drop(columns=SECONDS))
    # Times of the finished rows are kept, and a third run has nothing to do.
    pd.testing.assert_frame_equal(start("cars-probe", **work, out="parts.csv"), parts)
    assert len(fits) == 13


@pytest.mark.slow
def test_a_killed_command_goes_on(start, weights, tmp_path):
    whole = start("cars-probe", n=(6, 9, 12), seeds=(0, 1), out="whole.csv")
    out = tmp_path / "elsewhere" / "killed.csv"
    command = [sys.executable, FOLDER / "run.py", "cars-probe", "--data", tmp_path / "cars-probe"]
    command += ["--model", weights / "clip", "--out", out, "--device", "cpu", "--m", 12]
    command += ["--n", 6, 9, 12, "--seeds", 0, 1, "--methods", "uniform", "skmm", "--epochs", 3]
    command = [str(part) for part in command]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        while not out.exists() and process.poll() is None:
            time.sleep(0.005)
        process.kill()
    before = pd.read_csv(out, comment="#")
    assert 1 <= len(before) <= len(whole)
    subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    after = pd.read_csv(out, comment="#")
    pd.testing.assert_frame_equal(after[: len(before)], before, check_dtype=False)
    pd.testing.assert_frame_equal(after.drop(columns=SECONDS), whole.drop(columns=SECONDS))


def test_experiments_share_a_table(start):
    first = start("cars-probe")
    both = start("cars-finetune")
    assert list(both["task"]) == ["cars-probe"] * 2 + ["cars-finetune"] * 2
    pd.testing.assert_frame_equal(both[:2][list(first)], first, check_dtype=False)


@pytest.mark.parametrize("option", [("--m", 5), ("--target", "random"), ("--epochs", 4)])
def test_rows_of_other_settings_are_not_mixed(start, option):
    start("cars-probe")
    name = option[0].removeprefix("--")
    with pytest.raises(SystemExit, match=rf"rows of cars-probe with {name}=.*another --out"):
        start("cars-probe", *option)


def test_rows_of_other_versions_are_not_mixed(start, tmp_path):
    start("cars-probe")
    path = tmp_path / "out" / "a.csv"
    path.write_text(path.read_text().replace("# python 3", "# python 2"))
    with pytest.raises(SystemExit, match="another --out"):
        start("cars-probe")


def test_a_foreign_file_is_left_alone(paper, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("# head\ntask,score\nx,1\n")
    with pytest.raises(SystemExit, match="no table of these experiments"):
        paper.results.Table(path, ["# head"])
    assert path.read_text() == "# head\ntask,score\nx,1\n"


def test_a_row_is_written_or_not(paper, tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    table = paper.results.Table(path, ["# head"])
    table.append({"task": "t", "method": "a", "n": 1, "seed": 0, "accuracy": 50.0})
    before = path.read_bytes()

    def fails(*args):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fails)
        with pytest.raises(OSError, match="no space"):
            table.append({"task": "t", "method": "b", "n": 1, "seed": 0, "accuracy": 50.0})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]
    again = paper.results.Table(path, ["# head"])
    assert again.finished("t", "a", 1, 0)
    assert not again.finished("t", "b", 1, 0)


@pytest.mark.parametrize(
    ("experiment", "options", "message"),
    [
        ("utkface-probe", {"methods": ("entropy",)}, "no classes"),
        ("utkface-probe", {"methods": ("glister",)}, "no classes"),
        ("utkface-probe", {"options": ("--epochs", 3)}, "no --epochs"),
        ("cars-probe", {"n": (25,)}, "only 24 training images"),
    ],
)
def test_impossible_arguments_are_refused(start, capsys, experiment, options, message):
    with pytest.raises(SystemExit) as error:
        start(experiment, *options.pop("options", ()), **options)
    assert message in f"{error.value} {capsys.readouterr().err}"
