"""Pretrained models split into a frozen trunk, evaluated once, and a tail that is finetuned."""

import hashlib
import json
import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import (
    AutoImageProcessor,
    CLIPVisionModelWithProjection,
    ResNetForImageClassification,
)


@dataclass
class Pretrained:
    """Trunk from images to features, and a function (n_outputs, seed) that makes a tail."""

    trunk: nn.Module
    processor: object
    dtype: type  # of the features on disk
    make_tail: object


class ClipTrunk(nn.Module):
    """Image embeddings of CLIP, normalised to unit length."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixels):
        """Return one embedding for each image."""
        return nn.functional.normalize(self.model(pixel_values=pixels).image_embeds, dim=-1)


def clip(name):
    """Return CLIP's image encoder, with a linear layer as the tail.

    `transformers` reports the weights of the text encoder as unexpected, because they are not used.
    """
    model = CLIPVisionModelWithProjection.from_pretrained(name).eval()
    width = model.config.projection_dim
    processor = AutoImageProcessor.from_pretrained(name)
    return Pretrained(
        ClipTrunk(model), processor, np.float32, lambda n, seed: _linear(width, n, seed)
    )


def _linear(width, n_outputs, seed):
    """Return a linear layer initialised from this seed, without changing the global seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(width, n_outputs)


class ResNetTrunk(nn.Module):
    """ResNet up to its last convolution: the input of that one and the output of the shortcut."""

    def __init__(self, model):
        super().__init__()
        self.embedder = model.resnet.embedder
        stages = model.resnet.encoder.stages
        self.stages = nn.Sequential(*stages[:-1], *stages[-1].layers[:-1])
        block = stages[-1].layers[-1]
        self.first, self.shortcut = block.layer[0], block.shortcut

    def forward(self, pixels):
        """Return an array of shape (n, 2, channels, height, width)."""
        block_input = self.stages(self.embedder(pixels))
        return torch.stack([self.first(block_input), self.shortcut(block_input)], dim=1)


class LastTwoLayers(nn.Module):
    """The last convolution of a ResNet and a new linear layer, the only trained layers.

    The normalisation between them keeps its pretrained scale and shift. During training it uses the
    statistics of the batch, which a convolution needs with Adam at these learning rates.
    """

    def __init__(self, model, n_outputs, seed):
        super().__init__()
        block = model.resnet.encoder.stages[-1].layers[-1]
        convolution, normalization = block.layer[1].convolution, block.layer[1].normalization
        self.convolution = nn.Conv2d(
            convolution.in_channels,
            convolution.out_channels,
            convolution.kernel_size,
            padding=convolution.padding,
            bias=False,
        )
        self.normalization = nn.BatchNorm2d(convolution.out_channels, eps=normalization.eps)
        # Copies, so that each tail starts from the pretrained weights.
        self.convolution.load_state_dict(convolution.state_dict())
        self.normalization.load_state_dict(normalization.state_dict())
        self.normalization.requires_grad_(False)
        self.head = _linear(convolution.out_channels, n_outputs, seed)

    def forward(self, features):
        """Return the scores of the classes."""
        hidden, shortcut = features.unbind(dim=1)
        hidden = torch.relu(self.normalization(self.convolution(hidden)) + shortcut)
        return self.head(hidden.mean(dim=(-2, -1)))


def resnet(name):
    """Return a ResNet of basic blocks, with its last two layers as the tail."""
    model = ResNetForImageClassification.from_pretrained(name).eval()
    if model.config.layer_type != "basic" or model.config.hidden_act != "relu":
        raise SystemExit(f"{name} must be a ResNet of basic blocks with ReLU, such as ResNet-18.")
    processor = AutoImageProcessor.from_pretrained(name)
    # Half precision takes 0.1 MB per image at 224 pixels, 6 GB for all of CIFAR-10.
    return Pretrained(
        ResNetTrunk(model), processor, np.float16, lambda n, seed: LastTwoLayers(model, n, seed)
    )


def features(pretrained, images, folder, *, device, batch_size=64):
    """Return the trunk's output for all images, computed once and stored in this folder.

    The file name is a digest of the weights, the preprocessing and the names of the images, so that
    features of another model or data set are never used.
    """
    digest = hashlib.sha256()
    for key, value in sorted(pretrained.trunk.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().numpy().tobytes())
    digest.update(json.dumps(pretrained.processor.to_dict(), sort_keys=True, default=str).encode())
    digest.update("\n".join(images.names).encode())
    path = folder / f"{digest.hexdigest()[:16]}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".partial-{os.getpid()}")
        try:
            _compute(pretrained, images, partial, device, batch_size)
            os.replace(partial, path)  # all or nothing
        finally:
            partial.unlink(missing_ok=True)
    return np.load(path, mmap_mode="r")


@torch.no_grad()
def _compute(pretrained, images, path, device, batch_size):
    trunk = pretrained.trunk.to(device)
    array = None
    for start in range(0, len(images), batch_size):
        stop = min(start + batch_size, len(images))
        batch = [images[i] for i in range(start, stop)]
        pixels = pretrained.processor(images=batch, return_tensors="pt")["pixel_values"]
        output = trunk(pixels.to(device)).cpu().numpy()
        if array is None:
            shape = (len(images), *output.shape[1:])
            array = np.lib.format.open_memmap(path, "w+", pretrained.dtype, shape)
        array[start:stop] = output
        print(f"\rfeatures {stop} / {len(images)}", end="", flush=True)
    print()
    array.flush()
    trunk.cpu()
