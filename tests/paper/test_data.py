"""Loaders of the paper's data sets, and the files that they reject."""

import os
import pickle
import re

import numpy as np
import pytest

from tests.paper._data_files import (
    AGES,
    CARS,
    cifar_pixels,
    picture,
    save,
    write_cifar10,
    write_devkit,
    write_tree,
    write_utkface,
)

Image = pytest.importorskip("PIL.Image")

pytestmark = pytest.mark.slow  # it tests an example, not the package


@pytest.mark.parametrize("format_", CARS)
def test_cars_are_read_as_written(paper, tmp_path, format_):
    CARS[format_](tmp_path, [2, 0, 1, 2], [1, 0, 2])
    train, test = paper.data.load("cars", tmp_path)
    assert sorted(train.labels) == [0, 1, 2, 2]
    assert sorted(test.labels) == [0, 1, 2]
    if format_ != "tree":  # a tree is read in the order of the classes
        np.testing.assert_array_equal(train.labels, [2, 0, 1, 2])
    rng = np.random.RandomState(0)
    for label in (2, 0, 1, 2):
        wanted = picture(label, rng)
        distances = [np.abs(np.asarray(image, int) - wanted).mean() for image in train]
        closest = int(np.argmin(distances))
        assert distances[closest] < 8  # JPEG is lossy
        assert train.labels[closest] == label


def test_cifar10_is_read_as_written(paper, tmp_path):
    images = write_cifar10(tmp_path)
    train, test = paper.data.load("cifar10", tmp_path)
    assert (len(train), len(test)) == (30, 6)
    np.testing.assert_array_equal(train.labels, np.tile(np.arange(6) % 3, 5))
    np.testing.assert_array_equal(np.stack([np.asarray(image) for image in train]), images)


def test_cifar10_can_be_pickled_by_python_3_and_numpy_2(paper, tmp_path):
    write_cifar10(tmp_path)
    before, _ = paper.data.load("cifar10", tmp_path)
    _, rows = cifar_pixels(np.arange(6) % 3, np.random.RandomState(0))
    batch = {b"data": rows, b"labels": [0, 1, 2, 0, 1, 2], b"batch_label": b"1 of 5"}
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(batch, protocol=2))
    after, _ = paper.data.load("cifar10", tmp_path)
    np.testing.assert_array_equal(np.asarray(after[3]), np.asarray(before[3]))


class Malicious:
    """An object whose pickle creates a directory when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_loading_a_pickle_runs_no_code(paper, tmp_path):
    write_cifar10(tmp_path)
    trap = tmp_path / "trap"
    content = pickle.dumps({b"data": Malicious(trap), b"labels": [0]}, protocol=2)
    pickle.loads(content)  # the attack works with plain pickle
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
def test_pickles_of_anything_but_arrays_are_rejected(paper, tmp_path, content):
    write_cifar10(tmp_path)
    (tmp_path / "test_batch").write_bytes(content)
    with pytest.raises(SystemExit, match="test_batch is no batch of CIFAR-10"):
        paper.data.load("cifar10", tmp_path)


def test_utkface_is_read_as_written(paper, tmp_path, capsys):
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


def test_images_of_an_unexpected_format_are_not_opened(paper, tmp_path):
    write_utkface(tmp_path, AGES)
    train, _ = paper.data.load("utkface", tmp_path)
    first = tmp_path / train.names[0].split(" ")[0]
    image = train[0]
    image.save(first, format="BMP")
    with pytest.raises(Image.UnidentifiedImageError):
        train[0]


@pytest.mark.parametrize("name", ["cars", "cifar10", "utkface"])
def test_error_names_a_wrong_directory(paper, tmp_path, name):
    save(tmp_path / "holiday.jpg", picture(0, np.random.RandomState(0)))
    with pytest.raises(SystemExit, match=re.escape(f"{tmp_path} is not")):
        paper.data.load(name, tmp_path)
    with pytest.raises(SystemExit, match="no such directory"):
        paper.data.load(name, tmp_path / "absent")


def test_error_names_missing_files_of_cars(paper, tmp_path):
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


def test_hub_mirror_is_read_with_datasets(paper, tmp_path):
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
        columns["label"] = [-1, -1, -1]  # for the second folder
    train, test = paper.data.load("cifar10", f"hub:{tmp_path / 'complete'}")
    np.testing.assert_array_equal(train.labels, [1, 0, 2])
    np.testing.assert_array_equal(np.asarray(test[2]), pixels[2])
    with pytest.raises(SystemExit, match="without a label"):
        paper.data.load("cifar10", f"hub:{tmp_path / 'unlabelled'}")
