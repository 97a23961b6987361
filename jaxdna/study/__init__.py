"""Questions about hardware: are layouts equal, what would a slice do, how does it scale."""
