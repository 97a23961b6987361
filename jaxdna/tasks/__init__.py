"""What is asked of a network: outputs, targets, loss, scores, chance, and answers, as values."""
