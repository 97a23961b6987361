"""Questions about sequences and a trained model: scores, motifs, reports."""
