"""What every stage shares: configuration, paths, records, the dataset on disk. No TensorFlow."""
