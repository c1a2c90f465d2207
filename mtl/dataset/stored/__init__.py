"""The store of encoded rows, for data that are larger than memory."""
