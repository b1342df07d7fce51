"""Shared by every stage: configuration, paths, records, the dataset on disk. No TensorFlow."""
