"""The stage `report`: pages and texts from stored tables. No TensorFlow."""
