"""What learns measured numbers, on sites whose bases add up."""

import numpy as np

from tools.bench_real_numbers import SHIPPED, read, run_ours, score, table


def test_a_table_of_sites_is_learnt_and_has_its_row(tmp_path):
    random = np.random.default_rng(0)
    codes = random.integers(0, 4, (600, 9))
    numbers = random.normal(size=(9, 4))[np.arange(9), codes].sum(axis=1)
    sites = ["".join("ACGT"[base] for base in row) for row in codes]
    rows = [f"{site},{number}" for site, number in zip(sites, numbers, strict=True)]
    for part, chosen in (("train", rows[:500]), ("test", rows[500:])):
        lines = ["sequence,y", *chosen]
        (tmp_path / f"mpsa.{part}.csv").write_text("\n".join(lines) + "\n")
    truth = np.array([y for _, y in read(tmp_path / "mpsa.test.csv")])
    found = score(truth, run_ours(tmp_path, "mpsa", 0))
    assert found["pearson"] > 0.8
    runs = {SHIPPED: [score(truth, truth) | {"seconds": 1.0}], "jaxdna": [found | {"seconds": 2.0}]}
    assert f"| mpsa | {SHIPPED} | 1.0000 | 1.0000 |  |" in table({"mpsa": runs})
