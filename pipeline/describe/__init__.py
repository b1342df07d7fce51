"""Networks described before they are trained: tables, warnings, drawings."""
