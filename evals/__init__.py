"""How good it is: cases, metrics, benchmarks, reports."""
