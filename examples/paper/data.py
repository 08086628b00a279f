"""Load StanfordCars, CIFAR-10 and UTKFace from their original files or the Hugging Face hub."""

import pickle
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import loadmat

# Mirrors in the format of `datasets`, not uploaded by the authors of the data sets.
HUB = {
    "cars": "tanganke/stanford_cars",
    "cifar10": "uoft-cs/cifar10",
    "utkface": "nu-delta/utkface",
}
LABELS = ("label", "labels", "age")
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}
# Without this limit, Pillow tries dozens of other formats, whatever the suffix of a file.
FORMATS = ("JPEG", "PNG")
# [age]_[gender]_[race]_[date&time].jpg; aligned and cropped faces end in .jpg.chip.jpg.
UTKFACE_NAME = re.compile(r"(\d{1,3})_[01]_[0-4]_\d+\.jpg(\.chip\.jpg)?")


@dataclass
class Images:
    """Images, opened one at a time, and their labels."""

    names: list[str]  # one for each image, different if the image is different
    labels: np.ndarray
    open: Callable[[int], Image.Image]

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        with self.open(index) as image:
            return image.convert("RGB")


def load(name, source):
    """Return the training and test images of a data set.

    The source is a directory, ``hub``, or ``hub:NAME`` for another mirror or directory that
    `datasets.load_dataset` can read.
    """
    kind, _, mirror = str(source).partition(":")
    directory = Path(source)
    if kind == "hub":
        sets = from_hub(mirror or HUB[name])
    elif directory.is_dir():
        sets = {"cars": cars, "cifar10": cifar10, "utkface": utkface}[name](directory)
    else:
        raise SystemExit(f"--data {source}: no such directory. Pass a directory, hub or hub:NAME.")
    for images in sets:
        if images.labels.min() < 0:  # some mirrors mark missing labels like this
            raise SystemExit(f"--data {source}: some images are without a label.")
    return sets


def cars(directory):
    """Read StanfordCars from the devkit's annotations, or from train/ and test/ by class folder."""
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
                "the file with them is a separate download."
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
                f"{directory} has {len(classes)} folders in train and {len(found)} in test. Both "
                "must have the same classes."
            )
        return tuple(_tree(directory, split, classes) for split in ("train", "test"))
    raise SystemExit(
        f"{directory} is not StanfordCars: it must contain cars_train_annos.mat (also in devkit/), "
        "cars_annos.mat, or the folders train and test."
    )


def _annotations(path):
    """Return the records of one of the devkit's .mat files."""
    records = loadmat(path, squeeze_me=True).get("annotations")
    if records is None or records.dtype.names is None or "class" not in records.dtype.names:
        raise SystemExit(f"{path} has no annotations with a class.")
    return np.atleast_1d(records)


def _annotated(path, folder):
    records = _annotations(path)
    files = [folder / str(record["fname"]) for record in records]
    labels = [int(record["class"]) - 1 for record in records]  # classes count from 1
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
        raise SystemExit(what if missing else "No images found.")
    # The path relative to the directory, which may be moved, and the size.
    names = [f"{path.relative_to(directory).as_posix()} {path.stat().st_size}" for path in paths]
    return Images(names, np.asarray(labels), lambda i: Image.open(paths[i], formats=FORMATS))


class ArraysOnly(pickle.Unpickler):
    """Unpickle only containers, numbers, bytes and NumPy arrays.

    A pickle can call any importable function when it is loaded. CIFAR-10 is distributed as pickles,
    which need only the functions allowed here.
    """

    def find_class(self, module, name):
        """Return the object with this name if it is allowed."""
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
            return _latin1  # Python 3 writes bytes for Python 2 like this
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a data file")


def _empty_array(kind, shape, code):
    """Return an empty array as NumPy's own function does, for plain arrays only."""
    if kind is not np.ndarray or shape != (0,):
        raise pickle.UnpicklingError("only plain arrays are allowed in a data file")
    return np.ndarray.__new__(kind, shape, code)


def _latin1(text, encoding):
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"the encoding {encoding!r} is not allowed in a data file")
    return text.encode("latin-1")


def cifar10(directory):
    """Read the Python version of CIFAR-10: data_batch_1 to data_batch_5 and test_batch."""
    inner = directory / "cifar-10-batches-py"
    folder = inner if inner.is_dir() else directory
    parts = [f"data_batch_{i}" for i in range(1, 6)]
    absent = [name for name in (*parts, "test_batch") if not (folder / name).is_file()]
    if absent:
        raise SystemExit(
            f"{folder} is not the Python version of CIFAR-10: {', '.join(absent)} missing."
        )
    return _batches([folder / name for name in parts]), _batches([folder / "test_batch"])


def _batches(paths):
    pixels, labels, names = [], [], []
    for path in paths:
        try:
            with path.open("rb") as file:
                # The original files were written by Python 2, whose strings are bytes.
                batch = ArraysOnly(file, encoding="bytes").load()
            data, classes = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])
        except Exception as error:  # a broken pickle can raise any exception
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
    # Each row holds the red, the green and the blue plane.
    images = np.concatenate(pixels).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Images(names, np.concatenate(labels), lambda i: Image.fromarray(images[i]))


def utkface(directory):
    """Read UTKFace with ages from the file names; a tenth of the images is the test set."""
    paths = sorted(directory.rglob("*.jpg"), key=lambda path: path.name)
    matches = [UTKFACE_NAME.fullmatch(path.name) for path in paths]
    kept = [path for path, match in zip(paths, matches, strict=True) if match]
    if not kept:
        raise SystemExit(
            f"{directory} is not UTKFace: none of its {len(paths)} .jpg files is named "
            "[age]_[gender]_[race]_[date&time].jpg."
        )
    if len(kept) < len(paths):
        print(f"{len(paths) - len(kept)} files of {directory} are left out: incomplete file names")
    ages = np.array([float(match[1]) for match in matches if match])
    return _split(_files(directory, kept, ages))


def _split(images):
    """Hold out a tenth, the same for every seed of the experiment."""
    order = np.random.RandomState(0).permutation(len(images))
    n_test = max(1, len(images) // 10)
    return _subset(images, np.sort(order[n_test:])), _subset(images, np.sort(order[:n_test]))


def _subset(images, indices):
    names = [images.names[i] for i in indices]
    return Images(names, images.labels[indices], lambda i: images.open(int(indices[i])))


def from_hub(name):
    """Read a data set of the hub that has an image column and a label or age."""
    from datasets import Image as ImageColumn
    from datasets import load_dataset

    splits = load_dataset(name)
    if "train" not in splits:
        raise SystemExit(f"{name} must have a split train. It has {', '.join(splits)}.")

    def images(split):
        columns = splits[split].features
        image = [key for key, kind in columns.items() if isinstance(kind, ImageColumn)]
        label = [key for key in LABELS if key in columns]
        if not image or not label:
            raise SystemExit(
                f"{name} must have a column of images and one of {', '.join(LABELS)}. It has "
                f"{', '.join(columns)}."
            )
        data = splits[split].select_columns([image[0]])
        labels = np.asarray(splits[split][label[0]])
        # The fingerprint identifies the content, as file names and sizes do elsewhere.
        names = [f"{splits[split]._fingerprint}/{i}" for i in range(len(data))]
        return Images(names, labels, lambda i: data[int(i)][image[0]])

    if "test" in splits:
        return images("train"), images("test")
    return _split(images("train"))
