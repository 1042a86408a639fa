"""Parts of the benchmark surd_builder.py."""
