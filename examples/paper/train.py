"""Finetune a tail on features, predict with it and evaluate the predictions."""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error

BATCH = 512
ALPHAS = np.logspace(-4, 3, 15)


@dataclass(frozen=True)
class Recipe:
    """Settings of Adam with a constant learning rate and no weight decay."""

    lr: float
    epochs: int = 50


def fit(tail, X, y, *, recipe, seed, device, watch=None):
    """Train the parameters of the tail that require gradients, in place.

    For a regression, all of the tail is solved in closed form. ``watch(epoch, batch, output)`` is
    called with the positions of each batch and the tail's output for them before the step.
    """
    if recipe is None:
        return fit_ridge(tail, X, y)
    rng = np.random.RandomState(seed)
    targets = torch.as_tensor(y, dtype=torch.long)
    tail.to(device).train()
    trained = [parameter for parameter in tail.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=recipe.lr)
    # Batches of about equal size, at most 512: in a last batch of one sample, the normalisation
    # would use that sample alone.
    n_batches = -(-len(y) // BATCH)
    for epoch in range(recipe.epochs):
        for batch in np.array_split(rng.permutation(len(y)), n_batches):
            batch.sort()  # features are read from a file in order
            optimizer.zero_grad()
            output = tail(as_tensor(X[batch], device))
            if watch is not None:
                watch(epoch, batch, output.detach().cpu().numpy())
            torch.nn.functional.cross_entropy(output, targets[batch].to(device)).backward()
            optimizer.step()
    return tail.cpu().eval()


def fit_ridge(tail, X, y):
    """Solve for the weights of a linear tail, with the penalty chosen by leave-one-out.

    A linear regression needs no optimiser, and no test set to tune one.
    """
    ridge = RidgeCV(alphas=ALPHAS).fit(np.asarray(X, dtype=np.float64), y)
    with torch.no_grad():
        tail.weight.copy_(torch.as_tensor(ridge.coef_).reshape(1, -1))
        tail.bias.fill_(float(ridge.intercept_))
    return tail.eval()


@torch.no_grad()
def predict(tail, X, *, device):
    """Return the outputs for all rows."""
    tail.to(device).eval()
    parts = [
        tail(as_tensor(X[start : start + BATCH], device)).cpu().numpy()
        for start in range(0, len(X), BATCH)
    ]
    tail.cpu()
    return np.concatenate(parts)


@torch.no_grad()
def last_inputs(tail, X, *, device):
    """Return the inputs of the tail's last layer for all rows."""
    parts = []
    last = getattr(tail, "head", tail)
    handle = last.register_forward_pre_hook(lambda _, args: parts.append(args[0].cpu().numpy()))
    try:
        predict(tail, X, device=device)
    finally:
        handle.remove()
    return np.concatenate(parts)


def as_tensor(rows, device):
    """Return rows, possibly half precision and read-only, as a float tensor on the device."""
    return torch.from_numpy(np.array(rows)).to(device).float()


def evaluate(output, y, *, regression):
    """Return the metrics: in years for ages, in per cent for classes."""
    if regression:
        return {"mae": mean_absolute_error(y, output[:, 0])}
    predicted = output.argmax(axis=1)
    return {
        "accuracy": 100 * accuracy_score(y, predicted),
        "macro_f1": 100 * f1_score(y, predicted, average="macro", zero_division=0),
    }
