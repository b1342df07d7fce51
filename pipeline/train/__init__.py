"""The stage `train@NAME`: one network of params.yaml."""
