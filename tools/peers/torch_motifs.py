"""Learns to tell bound sequences with PyTorch; see motif_files.py and tools/bench_real.py."""

import copy

import numpy as np
import torch
from motif_files import Request, on_both_strands
from torch import nn


class Motifs(nn.Module):
    """The best place of each filter, of several widths."""

    def __init__(self, motifs: list[tuple[int, int]]):
        """Takes number and width of each kind of filters."""
        super().__init__()
        self.kinds = nn.ModuleList(nn.Conv1d(4, filters, width) for filters, width in motifs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [batch, 4, positions] to [batch, filters]."""
        return torch.cat([torch.relu(kind(x)).amax(2) for kind in self.kinds], 1)


def channels_first(x: np.ndarray) -> torch.Tensor:
    """Turns one-hot bases [examples, positions, 4] into what a Conv1d takes."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def main() -> None:
    """Trains and scores the request of the command line."""
    asked = Request.of_command_line()
    torch.set_num_threads(1)  # a step is a few ms: two threads wait longer than they compute
    torch.manual_seed(asked.seed)
    (x, y), (x_held, y_held) = (
        (channels_first(x), torch.from_numpy(y)) for x, y in (asked.training, asked.held_out)
    )
    features = sum(filters for filters, _ in asked.motifs)
    head = [nn.Linear(features, asked.hidden), nn.ReLU(), nn.Dropout(asked.dropout)]
    model = nn.Sequential(Motifs(asked.motifs), *head, nn.Linear(asked.hidden, 1))
    loss, optimizer = nn.BCEWithLogitsLoss(), torch.optim.Adam(model.parameters(), asked.step)
    least, best, waited = float("inf"), copy.deepcopy(model.state_dict()), 0
    for _ in range(asked.epochs):
        model.train()
        for rows in torch.randperm(len(x)).split(asked.batch):
            optimizer.zero_grad()
            loss(model(x[rows])[:, 0], y[rows]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            now = loss(model(x_held)[:, 0], y_held).item()
        waited = 0 if now < least else waited + 1
        if now < least:
            least, best = now, copy.deepcopy(model.state_dict())
        if waited == asked.patience:
            break
    model.load_state_dict(best)

    def logits(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            parts = channels_first(x).split(1024)
            return torch.cat([model(part)[:, 0] for part in parts]).numpy()

    asked.answer(on_both_strands(logits, asked.tested), sum(p.numel() for p in model.parameters()))


if __name__ == "__main__":
    main()
