"""DeepLIFT/SHAP by tangermeme, of the same networks; started by tools/compare_attributions.py.

Reads a line for each round from stdin: the path of an NPZ with parameters, sequences and
references. Answers with the processor seconds, and writes hypothetical scores
[sequences, 4, length] to PATH.npy.
"""

import sys
import time
from collections.abc import Mapping

import numpy as np
import torch
from tangermeme.deep_lift_shap import deep_lift_shap
from torch import nn


def conv(kernel: np.ndarray, dilation: int = 1, padding: str = "same") -> nn.Conv1d:
    """A convolution with a kernel [width, channels, filters], without bias."""
    width, channels, filters = kernel.shape
    made = nn.Conv1d(channels, filters, width, dilation=dilation, padding=padding, bias=False)
    made.weight.data = torch.from_numpy(kernel.transpose(2, 1, 0).copy())
    return made


def linear(kernel: np.ndarray, bias: np.ndarray) -> nn.Linear:
    """A linear map with a kernel [inputs, outputs]."""
    made = nn.Linear(*kernel.shape)
    made.weight.data = torch.from_numpy(kernel.T.copy())
    made.bias.data = torch.from_numpy(bias.copy())
    return made


class Affine(nn.Module):
    """Scales and shifts channels, [batch, channels, length]."""

    def __init__(self, scale: np.ndarray, bias: np.ndarray):
        """Takes both, [channels]."""
        super().__init__()
        self.scale = nn.Parameter(torch.from_numpy(scale.copy())[:, None])
        self.bias = nn.Parameter(torch.from_numpy(bias.copy())[:, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [batch, channels, length] to the same."""
        return x * self.scale + self.bias


class Residual(nn.Module):
    """What comes in and a branch of it."""

    def __init__(self, branch: nn.Module):
        """Takes the branch."""
        super().__init__()
        self.branch = branch

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps an array to one of the same shape."""
        return x + self.branch(x)


class Mean(nn.Module):
    """The mean over positions."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [batch, channels, length] to [batch, channels]."""
        return x.mean(dim=2)


class BothStrands(nn.Module):
    """The mean of a network's outputs on both strands."""

    def __init__(self, network: nn.Module):
        """Takes the network."""
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [batch, 4, length] to [batch, outputs]."""
        return (self.network(x) + self.network(x.flip(1, 2))) / 2


def motif_cnn(own: Mapping[str, np.ndarray], length: int, pool: int) -> nn.Module:
    """Convolution, bias, ReLU, maximum, linear map."""
    kernel = own["conv/kernel"]
    ones = np.ones(kernel.shape[2], np.float32)
    return nn.Sequential(
        conv(kernel, padding="valid"),
        Affine(ones, own["conv/bias"]),
        nn.ReLU(),
        nn.MaxPool1d(length - len(kernel) + 1),
        nn.Flatten(),
        linear(own["dense/kernel"], own["dense/bias"]),
    )


def deep_cnn(own: Mapping[str, np.ndarray], length: int, pool: int) -> nn.Module:
    """Blocks of convolution, normalisation, ReLU and pooling; the maximum; GELU between layers."""
    layers: list[nn.Module] = []
    block = 1
    while f"block{block}/kernel" in own:
        kernel, scale, bias = (own[f"block{block}/{name}"] for name in ("kernel", "scale", "bias"))
        norm = nn.LayerNorm((kernel.shape[2], length), elementwise_affine=False)
        layers += [conv(kernel), norm, Affine(scale, bias), nn.ReLU(), nn.MaxPool1d(pool)]
        length, block = length // pool, block + 1
    layers += [nn.MaxPool1d(length), nn.Flatten()]
    dense = 1
    while f"dense{dense}/kernel" in own:
        layers += [linear(own[f"dense{dense}/kernel"], own[f"dense{dense}/bias"])]
        dense += 1
        if f"dense{dense}/kernel" in own:
            layers.append(nn.GELU(approximate="tanh"))
    return nn.Sequential(*layers)


def dilated(own: Mapping[str, np.ndarray], length: int, pool: int) -> nn.Module:
    """A stem, residual layers of growing dilation, their mean and a linear map."""

    def layer(name: str, dilation: int) -> nn.Module:
        kernel = own[f"{name}/kernel"]
        ones = np.ones(kernel.shape[2], np.float32)
        return nn.Sequential(conv(kernel, dilation), Affine(ones, own[f"{name}/bias"]), nn.ReLU())

    layers, i = [layer("stem", 1)], 1
    while f"residual{i}/kernel" in own:
        layers.append(Residual(layer(f"residual{i}", 2**i)))
        i += 1
    return nn.Sequential(*layers, Mean(), linear(own["dense/kernel"], own["dense/bias"]))


def main() -> None:
    """Attributes until stdin ends."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        path = line.strip()
        own = np.load(path)
        network = {"motif_cnn": motif_cnn, "deep_cnn": deep_cnn, "dilated": dilated}[
            str(own["network"])
        ]
        kind = getattr(torch, str(own["precision"]))
        sequences = torch.from_numpy(own["sequences"]).permute(0, 2, 1).to(kind)
        references = torch.from_numpy(own["references"]).permute(0, 1, 3, 2).to(kind)
        model = BothStrands(network(own, sequences.shape[2], int(own["pool"]))).to(kind)
        begin = time.process_time()
        found = deep_lift_shap(
            model, sequences, references=references, hypothetical=True, device="cpu",
            batch_size=int(own["batch"]),
        )  # fmt: skip
        seconds = time.process_time() - begin
        np.save(f"{path}.npy", found.detach().numpy())
        print(seconds, flush=True)


if __name__ == "__main__":
    main()
