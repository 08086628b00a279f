"""Baselines of the paper's tables that need a model trained on all labels.

They follow the definitions in the papers that introduced them.
"""

import numpy as np
import torch
import train

DEEPFOOL_STEPS, OVERSHOOT, LIKELIEST = 50, 0.02, 10
GLISTER_ROUNDS = 100


def highest(scores, n, seed):
    """Return the positions of the n highest scores, with ties broken at random by the seed."""
    order = np.random.RandomState(seed).permutation(len(scores))
    return order[np.argsort(-scores[order], kind="stable")[:n]]


def forgetting(correct):
    """Count how often each sample was classified correctly and then incorrectly the next time.

    A sample that is never classified correctly gets a count of infinity.

    M. Toneva, A. Sordoni, R. Tachet des Combes, A. Trischler, Y. Bengio, G. J. Gordon. "An
    empirical study of example forgetting during deep neural network learning". ICLR 2019.

    Parameters
    ----------
    correct : bool array of shape (n_epochs, n_samples)
        Whether each sample was classified correctly when it was in a batch.
    """
    events = (correct[:-1] & ~correct[1:]).sum(axis=0).astype(float)
    events[~correct.any(axis=0)] = np.inf
    return events


def contextual_diversity(log_p, n, seed):
    """Return n positions whose predicted class probabilities are far apart.

    The search starts at random and adds the sample that is farthest from its nearest selected
    sample. The distance is the mean of the two Kullback–Leibler divergences between the predicted
    probabilities.

    S. Agarwal, H. Arora, S. Anand, C. Arora. "Contextual diversity for active learning". ECCV 2020.

    Parameters
    ----------
    log_p : array of shape (n_samples, n_classes)
        Logarithms of the predicted probabilities.
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

    The gain of a sample is the inner product of its gradient and the gradient of the validation
    loss, after a step of size eta on the mean loss of the samples selected so far. There is no
    separate validation set, so all samples are used as one. Gradients are those of the last layer.
    As in the paper, several samples are selected before the step is recomputed, in at most `rounds`
    rounds.

    K. Killamsetty, D. Sivasubramanian, G. Ramakrishnan, R. Iyer. "GLISTER: generalization based
    data subset selection for efficient and robust learning". AAAI 2021.

    Parameters
    ----------
    inputs : array of shape (n_samples, n_features)
        Inputs of the last layer.
    output : array of shape (n_samples, n_classes)
        Outputs of the last layer, before the softmax.
    """
    inputs = np.column_stack([inputs, np.ones(len(inputs), inputs.dtype)])  # for the bias

    def errors(scores):
        """Return the gradients of the losses with respect to the scores."""
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

    Around the sample, the class scores are approximated as linear, and the sample moves to the
    nearest class boundary. This is repeated until the predicted class changes. Only the ten most
    likely classes are tried. The sample is the input of the tail, not the image.

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
        # The class predicted at first is in column 0.
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
