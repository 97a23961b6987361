"""What a run does in time: epochs, signals, its folder, and what it leaves there."""
