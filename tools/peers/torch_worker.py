"""Trains with PyTorch, a plain loop or DDP; see protocol.py and tools/bench_peers.py."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from protocol import one_hot, serve, timed_epochs
from torch import nn


class GlobalMax(nn.Module):
    """Maximum over positions."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [batch, filters, positions] to [batch, filters]."""
        return x.amax(2)


def build(network: dict[str, Any], shape: tuple[int, ...]) -> nn.Sequential:
    """Returns the network; `shape` is [channels, ...] of one example."""
    if network["name"] == "motif_cnn":
        filters = network["filters"]
        convolution = nn.Conv1d(4, filters, network["width"])
        return nn.Sequential(convolution, nn.ReLU(), GlobalMax(), nn.Linear(filters, 1))
    stack: list[nn.Module] = []
    channels = shape[0]
    for filters in map(int, network["filters"].split(",") if "filters" in network else []):
        stack += [nn.Conv2d(channels, filters, 3, padding=network["padding"]), nn.ReLU()]
        stack += [nn.Conv2d(filters, filters, 3), nn.ReLU(), nn.MaxPool2d(2)]
        channels = filters
    stack.append(nn.Flatten())
    features = nn.Sequential(*stack)(torch.zeros(1, *shape)).shape[1]
    for units in map(int, network["dense"].split(",")):
        stack += [nn.Linear(features, units), nn.ReLU(), nn.Dropout(network["dropout"])]
        features = units
    return nn.Sequential(*stack, nn.Linear(features, 10))


def trainer(request: dict[str, Any], rank: int, ranks: int) -> tuple[Callable[[int], None], int]:
    """Returns what trains for some epochs, and the number of parameters."""
    torch.manual_seed(0)
    data, network = np.load(request["data"]), request["network"]
    bases = network["name"] == "motif_cnn"
    pixels = one_hot(data["x"]) if bases else np.float32(data["x"]) / 255
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, 1)))
    y = torch.from_numpy(data["y"].astype(np.float32 if bases else np.int64))
    model: nn.Module = build(network, tuple(x.shape[1:]))
    parameters = sum(p.numel() for p in model.parameters())
    if ranks > 1:
        model = nn.parallel.DistributedDataParallel(model)
    loss = nn.BCEWithLogitsLoss() if bases else nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    batch = request["batch"]
    mine = slice(rank * batch // ranks, (rank + 1) * batch // ranks)

    def train(epochs: int) -> None:
        for _ in range(epochs):
            order = torch.randperm(len(x))  # the same on every rank: they share a seed
            for first in range(0, len(x), batch):
                rows = order[first : first + batch][mine]
                logits = model(x[rows])
                optimizer.zero_grad()
                loss(logits[:, 0] if bases else logits, y[rows]).backward()
                optimizer.step()

    return train, parameters


def main() -> None:
    """Serves the request of the command line; rank 0 tells the others how many epochs."""
    request = json.loads(sys.argv[1])
    rank, ranks = request.get("rank", 0), request.get("replicas", 1)
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks))
    others = []
    if ranks > 1:
        if rank == 0:
            for other in range(1, ranks):
                argument = json.dumps(request | {"rank": other})
                others.append(subprocess.Popen([sys.executable, __file__, argument]))
        address = f"tcp://127.0.0.1:{request['port']}"
        dist.init_process_group("gloo", init_method=address, rank=rank, world_size=ranks)
    train, parameters = trainer(request, rank, ranks)

    def together(epochs: int) -> None:
        if ranks > 1:
            dist.broadcast(torch.tensor(epochs), 0)
        train(epochs)

    if rank == 0:
        answers = {"train": timed_epochs(together, len(np.load(request["data"])["x"]))}
        serve({"parameters": parameters, "version": torch.__version__}, answers)
        if ranks > 1:
            dist.broadcast(torch.tensor(0), 0)
    else:
        while True:
            epochs = torch.tensor(0)
            dist.broadcast(epochs, 0)
            if not epochs:
                break
            train(int(epochs))
    for process in others:
        process.wait()


if __name__ == "__main__":
    main()
