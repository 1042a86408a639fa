"""SURD-Shapes: a world small enough to be known whole.

Pictures whose truth is known, prompts of both kinds about them, a judge that reads pixels, and tiny models in
the usual formats that were raised there. ``python -m train demo`` trains a SUR-adapter in it.
"""
