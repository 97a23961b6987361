"""Whether a run has learnt anything, where classes are equal, rare, or next to absent."""

import numpy as np
import pytest

from jaxdna.tasks.kinds import of_classes
from jaxdna.tasks.metrics import auroc
from jaxdna.tasks.numbers import Regression
from jaxdna.tasks.verdict import LEARNT_NOTHING, few_tested, verdict_of_folds, with_caveats
from jaxdna.training.early_stopping import EarlyStopping


def labels(positives, negatives):
    return np.repeat([1, 0], [positives, negatives])


def logits(area, y):
    """Scores of that AUROC: so many negatives lie above all positives."""
    positives, negatives = int(y.sum()), int((1 - y).sum())
    above = round((1 - area) * negatives)
    return np.concatenate([np.zeros(positives), np.repeat([1, -1], [above, negatives - above])])[
        :, None
    ]


def leaves(y, loss_of_chance, area):
    task = of_classes(max(2, len(np.unique(y))))
    chance = task.chance_loss(y)
    watched = EarlyStopping("val_loss", 3, 0.0, chance, task.chance_auroc(y))
    watched.update(1, {"val_loss": loss_of_chance * chance, "val_auroc": area})
    return watched.left_plateau


@pytest.mark.parametrize(
    ("y", "loss", "area", "left"),
    [
        (labels(16, 562), 1.15, 0.83, True),
        (labels(562, 16), 1.15, 0.83, True),
        (labels(16, 562), 1.15, 0.60, False),
        (labels(2, 55), 1.15, 0.90, False),  # within the noise of two
        (labels(500, 500), 1.0, 0.60, False),  # ranks of a network that has not begun to learn
        (labels(500, 500), 0.97, 0.60, True),
        (labels(0, 50), 1.0, None, False),
        (np.arange(30) % 10, 1.0, None, False),
    ],
)
def test_the_plateau_is_left_by_ranks_too_where_one_class_is_rare(y, loss, area, left):
    assert leaves(y, loss, area) is left


@pytest.mark.parametrize(
    ("validation", "test", "area", "words"),
    [
        (labels(300, 300), labels(300, 300), 0.52, [LEARNT_NOTHING]),
        (labels(16, 562), labels(16, 562), 0.52, [LEARNT_NOTHING]),
        (labels(16, 562), labels(16, 562), 0.83, ["ranks the test split better", "(AUROC 0.83)"]),
        (labels(2, 55), labels(3, 113), 0.80, ["2 of 57 validation examples", "too few to tell"]),
    ],
)
def test_nothing_is_said_to_be_learnt_only_where_that_can_be_told(validation, test, area, words):
    scores = logits(area, test)
    assert auroc(test, scores[:, 0]) == pytest.approx(area, abs=0.01)
    found = of_classes(2).verdict(False, validation, test, scores)
    assert all(word in found for word in words), found


def test_a_run_that_has_learnt_is_told_beside_chance_the_ceiling_and_what_may_be_wrong():
    y = labels(200, 300)
    found = of_classes(2).verdict(True, y, y, logits(0.9, y), {"accuracy": 0.951, "auroc": 0.987})
    assert found == (
        "54.0% of 500 test examples are classified correctly (always saying unbound: 60.0%; at "
        "best 95.1%)"
        ", and AUROC is 0.900 (chance 0.5; at best 0.987)."
    )
    assert with_caveats(found, ["2 leak", "GC tells"]) == f"{found} But 2 leak; and GC tells."
    assert with_caveats("Good.", few_tested(4)).startswith("Good. But only 4 test examples were")
    assert with_caveats("Good.", few_tested(100)) == "Good."
    numbers = np.arange(20, dtype=np.float32)[:, None]
    task = Regression.fitted(("a",), numbers)
    outputs = (numbers - numbers.mean()) / numbers.std()
    assert task.verdict(True, numbers, numbers, outputs) == (
        "Pearson's r is 1.000 on 20 test examples (chance 0), and 100% of the variance is "
        "explained."
    )
    assert task.verdict(False, numbers, numbers, outputs) == LEARNT_NOTHING
    assert "5 validation examples are too few" in task.verdict(False, numbers[:5], numbers, outputs)


def test_a_cross_validation_says_what_its_folds_leave_in_doubt():
    assert verdict_of_folds("Good.", [True, True], 100) == "Good."
    few = "only 40 test examples were scored, so others may score quite differently"
    assert verdict_of_folds("Good.", [True, True], 40) == f"Good. But {few}."
    stuck = "1 of 2 folds never left the plateau of chance"
    assert verdict_of_folds("Good.", [True, False], 40) == f"Good. But {stuck}; and {few}."
    assert "nothing was learnt" in verdict_of_folds("Good.", [False, False], 100)
