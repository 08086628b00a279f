"""Baselines of the paper's tables, compared with direct computations."""

import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.slow  # it tests an example, not the package


def test_ties_of_scores_are_broken_at_random(paper):
    scores = np.array([0.0, 2.0, 1.0, 1.0, 1.0, 1.0])
    draws = [paper.baselines.highest(scores, 3, seed) for seed in range(60)]
    assert all(draw[0] == 1 for draw in draws)
    assert set(np.ravel([draw[1:] for draw in draws])) == {2, 3, 4, 5}
    np.testing.assert_array_equal(draws[7], paper.baselines.highest(scores, 3, 7))


def test_forgetting_counts_match_hand_counts(paper):
    histories = {"11111": 0, "00111": 0, "10101": 2, "01100": 1, "10000": 1, "00000": np.inf}
    correct = np.array([[digit == "1" for digit in history] for history in histories]).T
    np.testing.assert_array_equal(paper.baselines.forgetting(correct), list(histories.values()))


def test_contextual_diversity_is_farthest_first_traversal(paper):
    rng = np.random.RandomState(0)
    p = rng.dirichlet(np.full(4, 0.3), size=30) + 1e-6
    p /= p.sum(axis=1, keepdims=True)
    distances = rel_entr(p[:, None], p).sum(axis=2) + rel_entr(p, p[:, None]).sum(axis=2)
    picks = paper.baselines.contextual_diversity(np.log(p), 12, seed=3)
    assert len(set(picks)) == 12
    for t in range(1, 12):
        to_nearest = distances[:, picks[:t]].min(axis=1)
        assert picks[t] == np.argmax(to_nearest)


def test_contextual_diversity_distinguishes_certain_predictions(paper):
    """Probabilities that are zero in single precision are distinguished by their logarithms."""
    log_p = log_softmax(np.float32([[0, 300], [0, 200], [300, 0], [0, 299]]), axis=1)
    for seed in range(4):
        picks = paper.baselines.contextual_diversity(log_p, 3, seed)
        assert len(set(picks)) == 3
        assert 2 in picks


@pytest.mark.parametrize("rounds", [1, 3, 6])
def test_glister_selects_the_largest_gains(paper, rounds):
    """The expected gains are the slopes of the loss over all samples, from autograd."""
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


def test_glister_lowers_the_loss_more_than_random_sampling(paper):
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
    """Two classes, inside and outside a circle of radius one."""

    def forward(self, x):
        return torch.stack([x.square().sum(dim=1), torch.ones(len(x))], dim=1)


def test_deepfool_finds_a_curved_boundary(paper):
    """From outside, several steps are needed, and the first falls far short of the boundary."""
    radius = np.array([0.95, 1.1, 2.0, 4.0, 9.0], dtype=np.float32)
    X = radius[:, None] * np.float32([0.6, 0.8])
    found = paper.baselines.deepfool(Ring(), X, device="cpu")
    # DeepFool overshoots by two per cent, so it may stop that far from the circle.
    np.testing.assert_allclose(found, np.abs(radius - 1), rtol=0.05, atol=0.02)


def test_deepfool_is_finite_where_all_slopes_are_zero(paper):
    """Without any slope, the distance is still finite."""
    tail = torch.nn.Linear(3, 2)
    with torch.no_grad():
        tail.weight.zero_()
        tail.bias.copy_(torch.tensor([1.0, 0.0]))
    found = paper.baselines.deepfool(tail, np.zeros((4, 3), np.float32), device="cpu")
    assert np.isfinite(found).all()
