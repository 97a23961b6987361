"""What lies on disk: files that are whole or absent, their digests, and whose folder it is."""
