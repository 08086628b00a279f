"""StanfordCars, CIFAR-10 and UTKFace, as they are distributed or from the Hugging Face hub."""

import pickle
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import loadmat

# Mirrors by others than the authors of the sets, in the format of `datasets`.
HUB = {
    "cars": "tanganke/stanford_cars",
    "cifar10": "uoft-cs/cifar10",
    "utkface": "nu-delta/utkface",
}
LABELS = ("label", "labels", "age")
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}
# Whatever a file is called, Pillow would look whether it is one of dozens of others.
FORMATS = ("JPEG", "PNG")
# [age]_[gender]_[race]_[date&time].jpg; the aligned and cropped faces end in .jpg.chip.jpg.
UTKFACE_NAME = re.compile(r"(\d{1,3})_[01]_[0-4]_\d+\.jpg(\.chip\.jpg)?")


@dataclass
class Images:
    """Images that are opened one at a time, and their labels."""

    names: list[str]  # for each image one that changes with the image
    labels: np.ndarray
    open: Callable[[int], Image.Image]

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        with self.open(index) as image:
            return image.convert("RGB")


def load(name, source):
    """Return the train and test images of a data set.

    The source is a directory, ``hub``, or ``hub:NAME`` for another mirror (or a directory) that
    `datasets.load_dataset` reads.
    """
    kind, _, mirror = str(source).partition(":")
    directory = Path(source)
    if kind == "hub":
        sets = from_hub(mirror or HUB[name])
    elif directory.is_dir():
        sets = {"cars": cars, "cifar10": cifar10, "utkface": utkface}[name](directory)
    else:
        raise SystemExit(f"--data {source}: there is no such directory. Give a directory or 'hub'.")
    for images in sets:
        if images.labels.min() < 0:  # how some mirrors mark what has no label
            raise SystemExit(f"--data {source}: there are images without a label.")
    return sets


def cars(directory):
    """Read StanfordCars: the devkit's annotations, or train/ and test/ with a folder a class."""
    for folder in (directory, directory / "devkit"):
        if (folder / "cars_train_annos.mat").exists():
            test = "cars_test_annos_withlabels.mat"
            for place in (folder, directory):
                if (place / test).exists():
                    return (
                        _annotated(folder / "cars_train_annos.mat", directory / "cars_train"),
                        _annotated(place / test, directory / "cars_test"),
                    )
            raise SystemExit(
                f"{directory} has no {test}. The devkit's own cars_test_annos.mat has no classes; "
                "the file with them is distributed beside it."
            )
        if (folder / "cars_annos.mat").exists():
            records = _annotations(folder / "cars_annos.mat")
            return tuple(
                _files(
                    directory,
                    [directory / str(r["relative_im_path"]) for r in records if r["test"] == test],
                    [int(r["class"]) - 1 for r in records if r["test"] == test],
                )
                for test in (0, 1)
            )
    if (directory / "train").is_dir() and (directory / "test").is_dir():
        classes = sorted(path.name for path in (directory / "train").iterdir() if path.is_dir())
        found = sorted(path.name for path in (directory / "test").iterdir() if path.is_dir())
        if not classes or classes != found:
            raise SystemExit(
                f"{directory} has {len(classes)} folders in train and {len(found)} in test: they "
                "must be the same classes."
            )
        return tuple(_tree(directory, split, classes) for split in ("train", "test"))
    raise SystemExit(
        f"{directory} is not StanfordCars: it has neither cars_train_annos.mat (or devkit/ with "
        "it), nor cars_annos.mat, nor the folders train and test."
    )


def _annotations(path):
    """Return the records of a .mat file of the devkit."""
    records = loadmat(path, squeeze_me=True).get("annotations")
    if records is None or records.dtype.names is None or "class" not in records.dtype.names:
        raise SystemExit(f"{path} holds no annotations with a class.")
    return np.atleast_1d(records)


def _annotated(path, folder):
    records = _annotations(path)
    files = [folder / str(record["fname"]) for record in records]
    labels = [int(record["class"]) - 1 for record in records]  # they count from 1
    return _files(folder.parent, files, labels)


def _tree(directory, split, classes):
    pairs = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((directory / split / name).iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]
    return _files(directory, [path for path, _ in pairs], [label for _, label in pairs])


def _files(directory, paths, labels):
    missing = [path for path in paths if not path.is_file()]
    if missing or not paths:
        what = f"{len(missing)} of {len(paths)} images are missing, the first is {missing[0]}"
        raise SystemExit(what if missing else "No images were found.")
    # The place in the directory, which may be moved as a whole, and the size.
    names = [f"{path.relative_to(directory).as_posix()} {path.stat().st_size}" for path in paths]
    return Images(names, np.asarray(labels), lambda i: Image.open(paths[i], formats=FORMATS))


class ArraysOnly(pickle.Unpickler):
    """Unpickles containers, numbers, bytes and NumPy arrays, and calls nothing else.

    A pickle names functions to be called on load, any that can be imported. CIFAR-10 is distributed
    as pickles, which need these three.
    """

    def find_class(self, module, name):
        """Return what is allowed by this name."""
        if (module, name) in (
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
        ):
            return _empty_array
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if (module, name) == ("_codecs", "encode"):
            return _latin1  # how Python 3 writes bytes for Python 2
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a data file")


def _empty_array(kind, shape, code):
    """Return what NumPy's own function of this purpose does, for plain arrays only."""
    if kind is not np.ndarray or shape != (0,):
        raise pickle.UnpicklingError("only plain arrays are allowed in a data file")
    return np.ndarray.__new__(kind, shape, code)


def _latin1(text, encoding):
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"the encoding {encoding!r} is not allowed in a data file")
    return text.encode("latin-1")


def cifar10(directory):
    """Read the Python version of CIFAR-10: data_batch_1 to 5 and test_batch."""
    inner = directory / "cifar-10-batches-py"
    folder = inner if inner.is_dir() else directory
    parts = [f"data_batch_{i}" for i in range(1, 6)]
    absent = [name for name in (*parts, "test_batch") if not (folder / name).is_file()]
    if absent:
        raise SystemExit(
            f"{folder} is not the Python version of CIFAR-10: it has no {', '.join(absent)}."
        )
    return _batches([folder / name for name in parts]), _batches([folder / "test_batch"])


def _batches(paths):
    pixels, labels, names = [], [], []
    for path in paths:
        try:
            with path.open("rb") as file:
                # The originals are of Python 2, whose strings are bytes.
                batch = ArraysOnly(file, encoding="bytes").load()
            data, classes = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])
        except Exception as error:  # a broken pickle raises anything
            raise SystemExit(f"{path} is no batch of CIFAR-10: {error}") from error
        if (
            (data.dtype, classes.dtype.kind) != (np.uint8, "i")
            or classes.ndim != 1
            or data.shape != (len(classes), 3 * 32 * 32)
        ):
            raise SystemExit(
                f"{path} is no batch of CIFAR-10: data of shape {data.shape} and {data.dtype}, "
                f"labels of shape {classes.shape} and {classes.dtype}."
            )
        pixels.append(data)
        labels.append(classes)
        content = zlib.crc32(data.tobytes())
        names += [f"{path.name} {content:08x} {i}" for i in range(len(classes))]
    # Rows are planes of red, green and blue.
    images = np.concatenate(pixels).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Images(names, np.concatenate(labels), lambda i: Image.fromarray(images[i]))


def utkface(directory):
    """Read UTKFace, the ages from the file names; a tenth is the test set."""
    paths = sorted(directory.rglob("*.jpg"), key=lambda path: path.name)
    matches = [UTKFACE_NAME.fullmatch(path.name) for path in paths]
    kept = [path for path, match in zip(paths, matches, strict=True) if match]
    if not kept:
        raise SystemExit(
            f"{directory} is not UTKFace: of {len(paths)} .jpg files none is named "
            "[age]_[gender]_[race]_[date&time].jpg."
        )
    if len(kept) < len(paths):
        print(f"{len(paths) - len(kept)} files of {directory} are left out: their names lack parts")
    ages = np.array([float(match[1]) for match in matches if match])
    return _split(_files(directory, kept, ages))


def _split(images):
    """Hold a tenth out, the same whatever the seed of the experiment."""
    order = np.random.RandomState(0).permutation(len(images))
    n_test = max(1, len(images) // 10)
    return _subset(images, np.sort(order[n_test:])), _subset(images, np.sort(order[:n_test]))


def _subset(images, indices):
    names = [images.names[i] for i in indices]
    return Images(names, images.labels[indices], lambda i: images.open(int(indices[i])))


def from_hub(name):
    """Read what `datasets` loads by this name: an image column, and a label or age."""
    from datasets import Image as ImageColumn
    from datasets import load_dataset

    splits = load_dataset(name)
    if "train" not in splits:
        raise SystemExit(f"{name} has no split train, only {', '.join(splits)}.")

    def images(split):
        columns = splits[split].features
        image = [key for key, kind in columns.items() if isinstance(kind, ImageColumn)]
        label = [key for key in LABELS if key in columns]
        if not image or not label:
            raise SystemExit(
                f"{name} has the columns {', '.join(columns)}: there must be one of images and "
                f"one of {', '.join(LABELS)}."
            )
        data = splits[split].select_columns([image[0]])
        labels = np.asarray(splits[split][label[0]])
        # The fingerprint stands for the content, as a file's name does elsewhere.
        names = [f"{splits[split]._fingerprint}/{i}" for i in range(len(data))]
        return Images(names, labels, lambda i: data[int(i)][image[0]])

    if "test" in splits:
        return images("train"), images("test")
    return _split(images("train"))
