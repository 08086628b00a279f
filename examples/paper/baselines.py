"""Baselines of the paper's tables that look at a model trained on all labels.

Written from the definitions in the papers that introduced them.
"""

import numpy as np
import torch
import train

DEEPFOOL_STEPS, OVERSHOOT, LIKELIEST = 50, 0.02, 10
GLISTER_ROUNDS = 100


def highest(scores, n, seed):
    """Return the positions of the n highest scores; among equal ones the seed draws."""
    order = np.random.RandomState(seed).permutation(len(scores))
    return order[np.argsort(-scores[order], kind="stable")[:n]]


def forgetting(correct):
    """Count how often each sample was classified rightly and the next time not.

    What is never classified rightly counts as forgotten infinitely often.

    M. Toneva, A. Sordoni, R. Tachet des Combes, A. Trischler, Y. Bengio, G. J. Gordon. "An
    empirical study of example forgetting during deep neural network learning". ICLR 2019.

    Parameters
    ----------
    correct : bool array of shape (n_epochs, n_samples)
        Whether each sample was classified rightly when it was in a batch.
    """
    events = (correct[:-1] & ~correct[1:]).sum(axis=0).astype(float)
    events[~correct.any(axis=0)] = np.inf
    return events


def contextual_diversity(log_p, n, seed):
    """Return n positions that are far apart in what the model makes of them.

    Starts at random and adds the sample that is farthest from its nearest pick. The distance is the
    mean of the two Kullback–Leibler divergences between the probabilities of the classes.

    S. Agarwal, H. Arora, S. Anand, C. Arora. "Contextual diversity for active learning". ECCV 2020.

    Parameters
    ----------
    log_p : array of shape (n_samples, n_classes)
        Logarithms of the probabilities.
    """
    p = np.exp(log_p)
    own = (p * log_p).sum(axis=1)
    indices = [np.random.RandomState(seed).randint(len(p))]
    nearest = np.full(len(p), np.inf)
    for _ in range(n - 1):
        i = indices[-1]
        distances = (own + own[i] - p @ log_p[i] - log_p @ p[i]) / 2
        nearest = np.minimum(nearest, distances)
        nearest[indices] = -np.inf
        indices.append(int(np.argmax(nearest)))
    return np.array(indices)


def glister(inputs, output, y, n, *, eta, rounds=GLISTER_ROUNDS):
    """Return n positions whose gradient steps reduce the loss of all samples most.

    A sample gains the product of its gradient and that of the loss on a validation set, after a
    step of size eta on the mean loss of what is selected so far. With no validation set to spare,
    that set is all samples. Gradients are those of the last layer. As in the paper, several samples
    are taken before the step is made anew: there are at most so many rounds.

    K. Killamsetty, D. Sivasubramanian, G. Ramakrishnan, R. Iyer. "GLISTER: generalization based
    data subset selection for efficient and robust learning". AAAI 2021.

    Parameters
    ----------
    inputs : array of shape (n_samples, n_features)
        What the last layer is given.
    output : array of shape (n_samples, n_classes)
        What it returns, the scores before the softmax.
    """
    inputs = np.column_stack([inputs, np.ones(len(inputs), inputs.dtype)])  # with the bias

    def errors(scores):
        """Return the gradients with respect to the scores."""
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
        scores[np.arange(len(y)), y] -= 1
        return scores

    own = errors(output)
    selected = np.zeros(len(y), dtype=bool)
    indices = np.empty(0, dtype=int)
    step = np.zeros((output.shape[1], inputs.shape[1]), inputs.dtype)
    for size in np.diff(np.linspace(0, n, min(n, rounds) + 1).round().astype(int)):
        validation = errors(output - eta * (inputs @ step.T)).T @ inputs / len(y)
        gains = (own * (inputs @ validation.T)).sum(axis=1)
        gains[selected] = -np.inf
        picks = np.argsort(-gains, kind="stable")[:size]
        indices = np.append(indices, picks)
        selected[picks] = True
        step = own[selected].T @ inputs[selected] / len(indices)
    return indices


def deepfool(tail, X, *, device):
    """Return how far each sample must move for its predicted class to change.

    The classes are taken as linear around the sample, which moves to the nearest boundary of these,
    and so on until it has crossed one. Of the classes the likeliest ten are tried. The sample is
    what the tail is given, not the image.

    S.-M. Moosavi-Dezfooli, A. Fawzi, P. Frossard. "DeepFool: a simple and accurate method to fool
    deep neural networks". CVPR 2016. As a criterion of selection: M. Ducoffe, F. Precioso.
    "Adversarial active learning for deep networks: a margin based approach". 2018.
    """
    tail.to(device).eval()
    size = max(1, train.BATCH // LIKELIEST)
    parts = [
        _perturbations(tail, train.as_tensor(X[start : start + size], device))
        for start in range(0, len(X), size)
    ]
    tail.cpu()
    return np.concatenate(parts)


def _perturbations(tail, x):
    """Return the norms of DeepFool's perturbations of a batch."""
    moved = torch.zeros_like(x)
    with torch.no_grad():
        classes = tail(x).topk(min(LIKELIEST, tail(x[:1]).shape[1])).indices
    moving = torch.arange(len(x), device=x.device)
    for _ in range(DEEPFOOL_STEPS):
        at = (x[moving] + (1 + OVERSHOOT) * moved[moving]).requires_grad_(True)
        output = tail(at)
        # What was predicted at first comes first.
        scores = output.gather(1, classes[moving])
        still = output.argmax(dim=1) == classes[moving, 0]
        if not still.any():
            break
        slopes = torch.stack(
            [torch.autograd.grad(s.sum(), at, retain_graph=True)[0] for s in scores.unbind(1)], 1
        )[still]
        scores, moving = scores.detach()[still], moving[still]
        slopes = slopes[:, 1:] - slopes[:, :1]
        behind = scores[:, :1] - scores[:, 1:]
        squared = slopes.flatten(2).square().sum(dim=2).clamp_min(1e-20)
        nearest = (behind.square() / squared).argmin(dim=1)
        rows = torch.arange(len(moving), device=x.device)
        length = (behind / squared)[rows, nearest]
        moved[moving] += length.reshape(-1, *[1] * (x.ndim - 1)) * slopes[rows, nearest]
    return moved.flatten(1).norm(dim=1).cpu().numpy()
