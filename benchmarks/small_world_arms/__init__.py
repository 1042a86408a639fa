"""The parts of ``benchmarks/small_world.py``.

plan      what is measured with how much of what        groups  what each table compares
arms      adapters that differ from the default in one thing    scores  marks, gains and intervals
training  data, vectors, adapters; kept and resumed     tables  figures as Markdown
authors   the released code's habits as an objective    page    RESULTS.md and the JSON
costs     seconds of a step, equal compute              study   runs it all
gallery   pictures, verdicts, CLIP, KID
"""
