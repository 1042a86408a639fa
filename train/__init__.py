"""The command line: ``python -m train <command>``. One file a command; the work is done in sur_core."""
