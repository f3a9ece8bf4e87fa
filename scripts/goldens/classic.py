#!/usr/bin/env python3
"""Writes testdata/scikit-learn.json of train/classic, what scikit-learn and SciPy give for data that the Go tests make themselves, and of
train/metrics, what scikit-learn says of some predictions.

    python scripts/goldens/classic.py
"""

import json
import pathlib

import numpy as np
import scipy.optimize
import sklearn
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

TRAIN = pathlib.Path(__file__).resolve().parents[2] / "train"
MASK = (1 << 64) - 1


def numbers(seed):
    """SplitMix64's integers, minus those of the same sum's mean: a bell curve of integers within ±2048."""
    state = seed
    while True:
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        z ^= z >> 31
        yield sum((z >> shift) & 1023 for shift in (0, 10, 20, 30)) - 2046


def data(seed, rows, cols, classes):
    """Few latent factors behind many columns, a label of factors, a product of two and noise. Integers up to the last division, so that every
    language gets the same float32."""
    draw = numbers(seed)
    factors = 6
    mix = [[next(draw) // (k + 1) for _ in range(cols)] for k in range(factors)]
    offset = [next(draw) for _ in range(cols)]
    x = np.empty((rows, cols), np.float32)
    y = np.empty(rows, np.int64)
    for r in range(rows):
        z = [next(draw) for _ in range(factors)]
        for c in range(cols):
            total = sum(z[k] * mix[k][c] for k in range(factors)) + 512 * next(draw) + 1024 * offset[c]
            x[r, c] = np.float32(total) / np.float32(1 << 20)
        scores = [
            z[k % factors] * 2048 + z[k % factors] * z[(k + 1) % factors] + next(draw) * 1024 for k in range(classes)
        ]
        y[r] = (scores[1] > 0) if classes == 2 else int(np.argmax(scores))
    return x, y


def logistic(name, seed, rows, cols, classes, drop=None, **options):
    x, y = data(seed, rows, cols, classes)
    if drop is not None:  # a class that training never sees
        x, y = x[y != drop], y[y != drop]
    out = {
        "name": name,
        "seed": seed,
        "rows": rows,
        "cols": cols,
        "classes": classes,
        "drop": -1 if drop is None else drop,
        "c": options.get("C", 1.0),
        "tolerance": options.get("tol", 1e-4),
    }
    m = LogisticRegression(max_iter=1000, **options).fit(x.astype(np.float64), y)
    out.update(
        coef=m.coef_.tolist(),
        intercept=m.intercept_.tolist(),
        iterations=int(m.n_iter_[0]),
        proba=m.predict_proba(x[:5]).tolist(),
        seen=m.classes_.tolist(),
    )
    return out


def forest(name, seed, rows, test, cols, classes, **options):
    x, y = data(seed, rows + test, cols, classes)
    accuracies, nodes = [], []
    for s in range(10):
        m = RandomForestClassifier(random_state=s, **options).fit(x[:rows], y[:rows])
        accuracies.append(float(m.score(x[rows:], y[rows:])))
        nodes.append(float(np.mean([t.tree_.node_count for t in m.estimators_])))
    return {
        "name": name,
        "seed": seed,
        "rows": rows,
        "test": test,
        "cols": cols,
        "classes": classes,
        "accuracies": accuracies,
        "nodes_per_tree": float(np.mean(nodes)),
    }


def minimum(name, f, gradient, start, **options):
    r = scipy.optimize.minimize(
        f,
        start,
        jac=gradient,
        method="L-BFGS-B",
        options={"maxiter": 1000, "maxls": 50, "gtol": 1e-8, "ftol": 1e-15} | options,
    )
    return {
        "name": name,
        "start": list(map(float, start)),
        "x": r.x.tolist(),
        "iterations": int(r.nit),
        "evaluations": int(r.nfev),
    }


def powers(x):
    return float(np.sum(np.arange(1, len(x) + 1) * x**4 + np.abs(x) ** 1.5))


def powers_gradient(x):
    return 4 * np.arange(1, len(x) + 1) * x**3 + 1.5 * np.sign(x) * np.abs(x) ** 0.5


def scores(name, labels, predicted, classes):
    every = list(range(classes))
    p, r, f, _ = precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
    out = {
        "name": name,
        "labels": labels,
        "predicted": predicted,
        "classes": classes,
        "accuracy": accuracy_score(labels, predicted),
        "precision": p.tolist(),
        "recall": r.tolist(),
        "f1": f.tolist(),
        "confusion": confusion_matrix(labels, predicted, labels=every).tolist(),
    }
    return out | {
        f"{a}_f1": f1_score(labels, predicted, average=a, zero_division=0) for a in ("macro", "micro", "weighted")
    }


def write(package, golden):
    out = TRAIN / package / "testdata" / "scikit-learn.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(golden, separators=(",", ":")).replace('},{"name"', '},\n{"name"') + "\n")


def main():
    rosen = scipy.optimize.rosen, scipy.optimize.rosen_der
    golden = {
        "versions": {"scikit-learn": sklearn.__version__, "scipy": scipy.__version__, "numpy": np.__version__},
        "minima": [
            minimum("Rosenbrock, 2 variables", *rosen, [-1.2, 1.0]),
            minimum("Rosenbrock, 10 variables", *rosen, [-1.2, 1.0] * 5),
            minimum("Rosenbrock, far away", *rosen, [30.0, -40.0, 7.0]),
            minimum("steep and flat powers", powers, powers_gradient, [3.0, -2.0, 40.0, 0.01], gtol=1e-3),
        ],
        "logistic": [
            logistic("two classes", 1, 300, 20, 2),
            logistic("two classes, tight", 1, 300, 20, 2, tol=1e-9),
            logistic("two classes, weak penalty", 2, 400, 35, 2, C=50.0),
            logistic("six classes", 3, 400, 19, 6),
            logistic("six classes, tight", 3, 400, 19, 6, tol=1e-9),
            logistic("three classes, one unseen", 4, 200, 16, 3, drop=1),
            logistic("five classes, one unseen", 5, 300, 16, 5, drop=0),
        ],
        "forest": [
            forest("two classes", 6, 1000, 1000, 40, 2),
            forest("four classes", 7, 800, 1000, 30, 4),
        ],
    }
    write("classic", golden)
    write(
        "metrics",
        [
            scores("two classes", [0, 1, 1, 0, 1, 0, 0, 1, 1, 1], [0, 1, 0, 0, 1, 1, 0, 1, 0, 1], 2),
            scores("four classes", [0, 1, 2, 3, 3, 2, 1, 0, 3, 3, 1, 0], [0, 2, 2, 3, 1, 2, 1, 0, 3, 0, 1, 1], 4),
            scores("a class never predicted", [0, 1, 2, 2, 1, 0], [0, 1, 1, 1, 1, 0], 3),
            scores("a class that does not occur", [0, 1, 0, 3, 3], [0, 1, 1, 3, 0], 4),
            scores("a class only predicted", [0, 0, 1, 1], [0, 2, 1, 1], 3),
            scores("all wrong", [0, 1, 1], [1, 0, 0], 2),
        ],
    )


if __name__ == "__main__":
    main()
