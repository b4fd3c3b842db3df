"""Costs against size: of a library, its index, the search, a run and its steps."""
