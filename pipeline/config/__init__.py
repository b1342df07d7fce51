"""The stage `config`: a check of the parameters before anything runs."""
