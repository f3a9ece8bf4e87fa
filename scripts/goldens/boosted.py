#!/usr/bin/env python3
"""Writes testdata/xgboost.json of train/classic, what Python's XGBoost predicts for data that the Go tests make themselves, and
testdata/boosted.json, a file of its own that gopeft reads.

    python scripts/goldens/boosted.py
    python scripts/goldens/boosted.py open FILE    # predicts with a file that gopeft wrote, through both of Python's classes
"""

import json
import pathlib
import sys

import numpy as np
import xgboost
from classic import data

TESTDATA = pathlib.Path(__file__).resolve().parents[2] / "train" / "classic" / "testdata"


def values(x):
    """The shortest numbers that are these float32."""
    return [[float(str(v)) for v in row] for row in x]


def fitted(name, seed, rows, validation, test, cols, classes, drop=None, **options):
    x, y = data(seed, rows + validation + test, cols, classes)
    end = rows + validation
    train_x, train_y, val_x, val_y = x[:rows], y[:rows], x[rows:end], y[rows:end]
    if drop is not None:  # a class that training never sees
        train_x, train_y = train_x[train_y != drop], train_y[train_y != drop]
    seen, train_y = np.unique(train_y, return_inverse=True)
    m = xgboost.XGBClassifier(n_jobs=1, **options)
    m.fit(train_x, train_y, eval_set=[(val_x, val_y)] if validation else None, verbose=False)
    out = {
        "name": name,
        "seed": seed,
        "rows": rows,
        "validation": validation,
        "test": test,
        "cols": cols,
        "classes": classes,
        "drop": -1 if drop is None else drop,
        "early_stop": options.get("early_stopping_rounds", 0),
        "seen": seen.tolist(),
        "proba": values(m.predict_proba(x[end:])),
    }
    if validation:
        out |= {
            "best_iteration": m.best_iteration,
            "best_score": m.best_score,
            "rounds": m.get_booster().num_boosted_rounds(),
        }
    return out


def written():
    x, y = data(31, 200, 5, 3)
    m = xgboost.XGBClassifier(n_estimators=3, max_depth=2, n_jobs=1).fit(x[:180], y[:180])
    ours = {
        "version": "1",
        "classes": 3,
        "seen": [0, 1, 2],
        "labels": ["neg", "so so", "Ünïcode\n<>"],
        "meta": {"pool": "cls"},
    }
    m.get_booster().set_attr(gopeft=json.dumps(ours))
    m.get_booster().save_model(TESTDATA / "boosted.json")
    return {"seed": 31, "rows": 200, "cols": 5, "classes": 3, "test": 20, "proba": values(m.predict_proba(x[180:]))}


def write():
    golden = {
        "versions": {"xgboost": xgboost.__version__, "numpy": np.__version__},
        "fitted": [
            fitted("two classes", 21, 400, 0, 40, 20, 2),
            fitted("four classes", 22, 400, 0, 40, 20, 4),
            fitted("four classes, one unseen", 23, 400, 0, 30, 20, 4, drop=1),
            fitted("three classes, one unseen", 24, 300, 0, 30, 20, 3, drop=0),
            fitted("two classes, early stop", 25, 300, 150, 30, 20, 2, early_stopping_rounds=5),
            fitted("four classes, early stop", 26, 300, 150, 30, 20, 4, early_stopping_rounds=3),
            fitted("two classes, early stop never reached", 27, 300, 150, 30, 20, 2, early_stopping_rounds=1000),
        ],
        "written": written(),
    }
    text = json.dumps(golden, separators=(",", ":")).replace('},{"name"', '},\n{"name"')
    (TESTDATA / "xgboost.json").write_text(text + "\n")


def opened(path):
    """Prints what both of Python's classes predict for the rows of the Go test TestPythonOpensTheFile."""
    classifier, booster = xgboost.XGBClassifier(), xgboost.Booster()
    classifier.load_model(path)
    booster.load_model(path)
    x = data(32, 350, booster.num_features(), 3)[0][:50]
    rounds = (0, classifier.best_iteration + 1) if booster.attr("best_iteration") else (0, 0)
    direct = booster.predict(xgboost.DMatrix(x), iteration_range=rounds)
    proba = classifier.predict_proba(x)
    assert np.array_equal(proba if proba.shape[1] > 2 else proba[:, 1], direct)
    print(json.dumps(values(proba)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["open"]:
        opened(sys.argv[2])
    else:
        write()
