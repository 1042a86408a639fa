"""How the tiny models of SURD-Shapes are raised, from seeds: ``python -m train world --rebuild``."""
