"""The stage `replicate`: every network trained with further seeds."""
