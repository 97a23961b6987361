import math

from jaxdna.training.early_stopping import EarlyStopping


def follow(stopping, losses):
    for epoch, loss in enumerate(losses, start=1):
        stopping.update(epoch, {"val_loss": loss, "val_auroc": 1 - loss})
        if stopping.stop:
            return epoch
    return None


def stopping(**changes):
    settings = {"metric": "val_loss", "patience": 3, "min_delta": 0.0, "chance_loss": math.log(2)}
    return EarlyStopping(**(settings | changes))


def test_stops_after_patience_epochs_without_improvement_and_knows_the_best():
    watched = stopping()
    assert follow(watched, [0.5, 0.3, 0.4, 0.31, 0.35, 0.1]) == 5
    assert (watched.best_epoch, watched.best) == (2, 0.3)


def test_patience_does_not_count_on_the_plateau_of_chance():
    plateau = [0.6931, 0.6932, 0.6933, 0.6932, 0.6931, 0.6932]
    watched = stopping()
    assert follow(watched, plateau) is None
    assert not watched.left_plateau
    assert follow(stopping(), [*plateau, 0.5, 0.6, 0.6, 0.6]) == 10


def test_zero_patience_never_stops():
    assert follow(stopping(patience=0), [0.3] * 50) is None


def test_min_delta_ignores_small_gains():
    assert follow(stopping(min_delta=0.05), [0.5, 0.49, 0.48, 0.47]) == 4


def test_larger_auroc_is_better():
    watched = stopping(metric="val_auroc")
    follow(watched, [0.5, 0.2, 0.3])
    assert watched.best_epoch == 2


def test_the_state_survives_json():
    watched = stopping()
    follow(watched, [0.5, 0.3, 0.4])
    assert EarlyStopping(**watched.to_json()) == watched
