"""From a folder of data to a configuration that trains on it."""
