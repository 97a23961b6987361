"""The roofline where both can be had: a CPU's own peaks, and measured steps of CIFAR's network.

Seconds are those of the processor, and so the same however busy the machine is.
"""

import time

import jax

from jaxdna.config import load_config
from jaxdna.data.registry import load_dataset
from jaxdna.study.plan import plan, program_on
from jaxdna.study.rates import measure_rates
from jaxdna.study.step_timer import step_timer

FACTOR = 4  # docs/plan.md


def test_the_bound_of_a_step_is_never_above_the_measured_time_and_not_far_below():
    config = load_config("cifar10:timing", ["train.batch_size=64", "data.train_examples=256"])
    dataset, devices = load_dataset(config), jax.devices()[:1]
    program = program_on(config, dataset.spec, devices)
    timer = step_timer(program, program.compiled, dataset.splits["train"], time.process_time)
    rates = measure_rates(devices, time.process_time)
    measured = min(timer() for _ in range(3))
    bound = plan(program, machine=rates.machine())["roofline"]
    least = bound["step_seconds_at_least"]
    print(f"a step takes at least {least:.3f} s of the processor, and took {measured:.3f} s")
    assert bound["bound"] == "compute"
    assert least < measured < FACTOR * least
