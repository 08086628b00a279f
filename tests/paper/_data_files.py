"""Small data sets in the file formats of the paper's experiments."""

import struct

import numpy as np
from scipy.io import savemat


def picture(label, rng):
    """Return noise around a colour that depends on the class, wider than high."""
    colour = np.random.RandomState(label).uniform(60, 200, 3)
    return np.clip(colour + rng.normal(scale=20, size=(36, 48, 3)), 0, 255).astype(np.uint8)


def save(path, pixels):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95, subsampling=0)


def annotations(**fields):
    """Return an array of structures, as MATLAB writes them."""
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
    """Return a batch as pickled by Python 2, in which strings are bytes."""

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
