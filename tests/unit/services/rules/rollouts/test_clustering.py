"""The variance of a mean over users: statsmodels' cluster-robust one, and what a bootstrap of users finds."""

import numpy as np
import pytest
import statsmodels.api as sm

from ratchet.services.rules.rollouts.clustering import Sums, sample


def traffic(seed: int, users: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users (a few of them with most of the rows), values that resemble each other within a user, and weights."""
    rng = np.random.default_rng(seed)
    counts = np.maximum(rng.pareto(1.2, users).astype(int), 1).clip(max=200)
    who = np.repeat(np.arange(users), counts)
    x = np.clip(0.5 + np.repeat(rng.normal(0, 0.3, users), counts) + rng.normal(0, 0.2, who.size), 0, 1)
    return who, x, rng.choice([1.0, 4.0, 10.0], who.size)


def sums(who: np.ndarray, x: np.ndarray, w: np.ndarray, abstained: int = 0) -> Sums:
    """As the database gives them."""
    y, n = np.bincount(who, w * x), np.bincount(who, w)
    y, n = y[n > 0], n[n > 0]
    whole = (x.size, w.sum(), (w * x).sum(), (w * x * x).sum())
    return Sums(n.size, *map(float, whole), float(y @ y), float(y @ n), float(n @ n), abstained)  # type: ignore[arg-type]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_is_the_cluster_robust_variance_of_an_intercept(seed: int, weighted: bool) -> None:
    """Mean and variance are those of a weighted regression on nothing, with users as statsmodels' groups."""
    who, x, w = traffic(seed, 120)
    w = w if weighted else np.ones_like(w)
    fit = sm.WLS(x, np.ones_like(x), weights=w).fit(cov_type="cluster", cov_kwds={"groups": who})
    found = sample(sums(who, x, w))
    assert found.mean == pytest.approx(fit.params[0], rel=1e-12)
    assert found.mean_variance == pytest.approx(fit.bse[0] ** 2, rel=1e-9)
    assert found.users == 120
    assert found.n == x.size


def test_users_drawn_anew_vary_as_it_says() -> None:
    """The standard error is that of 4,000 means, each over as many users drawn with replacement."""
    who, x, w = traffic(5, 300)
    y, n = np.bincount(who, w * x), np.bincount(who, w)
    drawn = np.random.default_rng(9).integers(0, 300, (4_000, 300))
    means = y[drawn].sum(axis=1) / n[drawn].sum(axis=1)
    found = sample(sums(who, x, w))
    assert found.mean_variance is not None
    assert found.mean_variance**0.5 == pytest.approx(means.std(), rel=0.06)
    assert found.design_effect > 3, "these users repeat themselves"


def test_one_user_has_no_variance_and_nobody_has_no_mean() -> None:
    """Of one user the variance is not known; where nobody has a value there are no observations."""
    one = sample(Sums(1, 3, 3.0, 2.0, 2.0, 4.0, 6.0, 9.0, 5))
    assert (one.n, one.total, one.users, one.mean_variance, one.abstained) == (3, 2.0, 1, None, 5)
    none = sample(Sums(0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 4))
    assert (none.n, none.users, none.abstained) == (0, 0, 4)


def test_counts_stay_whole_and_rounding_is_no_variance_below_none() -> None:
    """Without weights the figures are exact; where every user is the same the variance is 0, not a little less."""
    alike = sample(Sums(3, 30, 30.0, 3.0, 3.0, 3.0, 30.0, 300.0))
    assert (alike.n, alike.total, alike.squares) == (30, 3.0, 3.0)
    assert alike.binary
    assert alike.mean_variance is not None
    assert 0 <= alike.mean_variance < 1e-12
