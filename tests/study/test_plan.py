import importlib.util
import json

import pytest

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs the extra [plan]"
)


def planned(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@needs_libtpu
def test_plans_a_tpu_slice_that_is_not_there(jaxdna):
    plan = planned(
        jaxdna("plan", "--config=configs/tal1.py", "--topology=v5e:2x2", "--json",
               "--config.mesh.data=2", "--config.mesh.seq=2")
    )  # fmt: skip
    assert set(plan) >= {
        "topology", "devices", "mesh", "flops_per_step", "bytes", "collectives", "compile_seconds",
    }  # fmt: skip
    assert plan["topology"] == "v5e:2x2"
    assert (plan["devices"], plan["mesh"]["data"], plan["mesh"]["seq"]) == (4, 2, 2)
    assert set(plan["bytes"]) == {"arguments", "temporaries", "output", "peak"}
    # 16 rows and half of the positions on each device: 16 * 243 * 60 * 16 * 2 operations forward.
    assert plan["flops_per_step"] > 16 * 243 * 60 * 16 * 2
    kinds = {row["kind"] for row in plan["collectives"]}
    assert {"all-reduce", "collective-permute"} <= kinds  # gradients and maxima; halos
    for row in plan["collectives"]:
        assert {"kind", "bytes", "async", "compute_ops_overlapped"} <= set(row)


@needs_libtpu
@pytest.mark.parametrize("topology", ["v5e:2x2", "v5p:2x2x1"])
def test_gradients_of_cifar_s_network_travel_beside_back_propagation(jaxdna, topology):
    """At least half of their bytes while a convolution or matrix product is computed.

    A batch of 8 has the same gradients and less to compute beside them, and compiles three times
    as fast as one of 64.
    """
    plan = planned(
        jaxdna("plan", "--config=configs/cifar10.py", "--config.data.synthetic=true", "--json",
               f"--topology={topology}", "--config.train.batch_size=8")
    )  # fmt: skip
    assert sum(row["bytes"] for row in plan["collectives"]) >= 276_138 * 4
    assert plan["overlapped"] >= 0.5


@needs_libtpu
def test_positions_of_a_dilated_stack_are_split_over_all_hosts_of_a_slice(jaxdna):
    """Each of eight devices, on two hosts, holds a stretch of every activation, and its halos."""
    temporaries = []
    for mesh in ("--config.mesh.seq=8", "--config.mesh.model=8"):
        plan = planned(
            jaxdna("plan", "--config=configs/dilated.py", "--topology=v5e:2x4", "--json",
                   "--config.data.length=4096", "--config.train.batch_size=8",
                   "--config.model.filters=16", "--config.model.layers=2",
                   "--config.model.strands=forward", "--config.mesh.data=1", mesh)
        )  # fmt: skip
        temporaries.append(plan["bytes"]["temporaries"])
    assert temporaries[0] <= temporaries[1] / 6


def test_ranks_every_mesh_of_the_devices_here(jaxdna):
    result = planned(
        jaxdna("plan", "--config=configs/tal1.py", "--all", "--json",
               "--config.runtime.cpu_devices=2")
    )  # fmt: skip
    meshes = [{a: n for a, n in plan["mesh"].items() if n > 1} for plan in result["plans"]]
    assert sorted(meshes, key=str) == [{"data": 2}, {"fsdp": 2}, {"model": 2}, {"seq": 2}]
    gradients = 993 * 4
    data = result["plans"][meshes.index({"data": 2})]
    assert sum(row["bytes"] for row in data["collectives"]) >= gradients


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--topology=v9:2x2"], "names an unknown device"),
        (["--topology=v5e:3x3"], "not a shape of v5e"),
        (["--topology="], "--topology needs a value"),
        (["--slices=2"], "--slices=2 needs --topology"),
        (
            ["--config.strategy=pipeline", "--config.mesh.stage=2"],
            "--config.strategy=pipeline cannot be planned, since its step has programs for each "
            "stage; legal: spmd",
        ),
        (["--config.strategy=parameter_server", "--all"], "strategy=parameter_server cannot be"),
        (["--config.mesh.stage=2"], "--config.mesh.stage=2 needs --config.strategy=pipeline"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(jaxdna, flags, words):
    done = jaxdna("plan", "--config=configs/tal1.py", *flags)
    assert done.returncode == 2
    assert done.stdout == ""
    assert words in done.stderr.splitlines()[-1]
