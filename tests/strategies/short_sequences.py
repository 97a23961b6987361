"""TAL1's sites in short sequences, which are learnt in a third of the time."""

SHORT = [
    "data.length=120",
    "data.train_examples=6400",
    "data.validation_examples=500",
    "data.test_examples=2000",
]
