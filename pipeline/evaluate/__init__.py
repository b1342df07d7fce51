"""The stage `evaluate`: metrics on the test images."""
