"""SUR-adapter in AUTOMATIC1111's web UI and in Forge: everything but the controls.

``scripts/sur_adapter.py`` builds the controls and hands over to these modules. They import nothing of the
hosts. What they need of one comes as an argument; what they keep about a run, they keep on its processing
object ``p``.
"""
